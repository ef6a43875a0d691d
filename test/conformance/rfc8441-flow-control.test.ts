import { randomBytes } from 'node:crypto'
import t from 'tap'
import { openSession, openTunnelOn } from '../helpers/http2-client.ts'
import { until } from '../helpers/tunnel.ts'
import { errorCodes, frameTypes, RawSession, settingIds } from './raw-http2.ts'
import { left, newChannel, peerOf, startServer } from './server.ts'
import { frame, message, opcodes, readFrame, readMessage } from './websocket-frames.ts'

// Flow control (RFC 9113, section 5.2): each tunnel has windows of its own, and nobody who does not read holds up others.

const app = await startServer(t)
const MIB = 1024 * 1024
const LARGEST_WINDOW = 2 ** 31 - 1
/** What a session may have sent of all streams together before it is given more. */
const SESSION_WINDOW = 65535

t.test('datagrams go into a window of 1 byte, byte for byte', async (t) => {
  const session = await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: 1 }, updatesWindows: false })
  const path = `/relay/${newChannel()}`
  const from = await session.connect(path)
  const to = await session.connect(path)
  const datagrams = [1, 10, 200].map((length) => Buffer.alloc(length, 255))
  await from.send(Buffer.concat(datagrams.map((datagram) => message(datagram))))
  const expected = Buffer.concat(datagrams.map((datagram) => message(datagram, { mask: false })))
  for (let received = 1; received < expected.length; received++) {
    await until(() => to.unread.length >= received)
    to.allow(1)
  }
  t.same(await to.read(expected.length), expected)
  t.ok(to.chunks.every(({ length }) => length === 1), 'never more than the window allows')
})

t.test('a window of 0 bytes holds datagrams until it grows', async (t) => {
  const session = await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: 0 }, updatesWindows: false })
  const path = `/relay/${newChannel()}`
  const from = await session.connect(path)
  const to = await session.connect(path)
  await from.send(message('a datagram'))
  await session.roundTrip()
  await session.roundTrip()
  t.equal(to.unread.length, 0)
  session.settings({ [settingIds.INITIAL_WINDOW_SIZE]: 5 })
  await until(() => to.unread.length === 5)
  session.settings({ [settingIds.INITIAL_WINDOW_SIZE]: 0 })
  to.allow(7)
  // 5 are gone and 7 have come: one is missing yet, and the setting may take it below zero.
  await until(() => to.unread.length === 7)
  to.allow(100)
  t.equal(String(await readMessage(to)), 'a datagram')
})

t.test('the session\'s own window holds all streams', async (t) => {
  const session = await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: LARGEST_WINDOW }, updatesWindows: false })
  const sender = await openSession(t, app)
  const path = `/relay/${newChannel()}`
  const to = await session.connect(path, 'spanza')
  const from = await openTunnelOn(sender, path, { protocol: 'spanza' })
  const bytes = randomBytes(200_000)
  from.stream.end(bytes)
  await until(() => to.unread.length >= SESSION_WINDOW)
  await session.roundTrip()
  t.equal(to.unread.length, SESSION_WINDOW)
  session.allow(LARGEST_WINDOW - SESSION_WINDOW)
  t.ok((await to.readToEnd()).equals(bytes))
})

t.test('8 MiB go into windows of 16 MiB without one update', async (t) => {
  const session = await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: 16 * MIB }, updatesWindows: false })
  session.allow(16 * MIB)
  const sender = await openSession(t, app)
  const path = `/relay/${newChannel()}`
  const to = await session.connect(path, 'spanza')
  const from = await openTunnelOn(sender, path, { protocol: 'spanza' })
  const bytes = randomBytes(8 * MIB)
  from.stream.end(bytes)
  t.ok((await to.readToEnd()).equals(bytes))
})

for (const [protocol, headers] of [['spanza', {}], ['websocket', { 'sec-websocket-protocol': 'spanza.raw.v1' }]] as const) {
  t.test(`a bare tunnel that is not read makes its partner (${protocol}) wait, and nothing is lost`, async (t) => {
    const session = await RawSession.open(t, app, { updatesWindows: false })
    const path = `/relay/${newChannel()}`
    const to = await session.connect(path, 'spanza')
    const sender = await RawSession.open(t, app)
    const from = await sender.connect(path, protocol, { 'x-id': 'fast', ...headers })
    const piece = randomBytes(1000)
    const wire = protocol === 'spanza' ? piece : message(piece)
    let pieces = 0
    // Until the server gives nothing back any more.
    while (pieces * piece.length < 4 * MIB) {
      if (from.sendWindow >= wire.length && sender.sendWindow >= wire.length) {
        await from.send(wire)
        pieces++
        continue
      }
      await sender.roundTrip()
      await sender.roundTrip()
      if (from.sendWindow < wire.length) break
    }
    t.ok(pieces * piece.length < 4 * MIB, `${pieces} pieces of 1000 bytes were taken`)
    t.ok(sender.sendWindow > MIB, 'the session of who waits goes on')
    session.allow(16 * MIB)
    to.allow(16 * MIB)
    const bytes = await to.read(pieces * piece.length)
    t.ok(bytes.equals(Buffer.concat(Array(pieces).fill(piece))))
  })
}

t.test('datagrams for a peer that does not read are dropped and counted, those for others are not held up', async (t) => {
  const slow = await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: 0 }, updatesWindows: false })
  const session = await RawSession.open(t, app)
  const [slowPath, path] = [`/relay/${newChannel()}`, `/relay/${newChannel()}`]
  const stalled = await slow.connect(slowPath)
  const flooder = await session.connect(slowPath, 'websocket', { 'x-id': 'flooder' })
  const from = await slow.connect(path)
  const to = await session.connect(path)
  const before = app.relayHub.stats().drops['queue-full']
  const datagram = message(Buffer.alloc(1200, 255))
  for (let sent = 0; sent < 3000; sent++) await flooder.send(datagram)
  await flooder.send(frame(opcodes.PING))
  await readFrame(flooder)
  t.ok(app.relayHub.stats().drops['queue-full'] > before)
  await from.send(message('in time'))
  t.equal(String(await readMessage(to)), 'in time', 'also on the session of who does not read')
  stalled.allow(16 * MIB)
  slow.allow(16 * MIB)
  t.equal((await readMessage(stalled)).length, 1200, 'and what was kept comes once it does')
})

t.test('100 tunnels on one session, of which one does not read: the others go on', async (t) => {
  const session = await openSession(t, app)
  const pairs = await Promise.all(Array.from({ length: 50 }, async (_, index) => {
    const path = `/relay/${newChannel()}`
    // Half of them are bare.
    const protocol = index % 2 === 0 ? 'websocket' : 'spanza'
    return [await openTunnelOn(session, path, { protocol }), await openTunnelOn(session, path, { protocol })] as const
  }))
  const [flood, stalled] = [pairs[1]![0].stream, pairs[1]![1].stream]
  stalled.pause()
  const taken = new Promise<void>((resolve) => flood.write(Buffer.alloc(8 * MIB), () => resolve()))
  for (let round = 0; round < 3; round++) {
    await Promise.all(pairs.map(async ([from, to], index) => {
      if (index === 1) return
      const bytes = randomBytes(20_000)
      bytes[0] = 255
      for (const [a, b] of [[from, to], [to, from]] as const) {
        a.send(index % 2 === 0 ? message(bytes) : bytes)
        const received = index % 2 === 0 ? await readMessage(b) : await b.read(bytes.length)
        if (!received.equals(bytes)) t.fail(`pair ${index} got something else`)
      }
    }))
  }
  stalled.resume()
  await taken
  t.equal((await pairs[1]![1].read(8 * MIB)).length, 8 * MIB, 'the one goes on when it reads')
})

t.test('a client that sends more than its stream\'s window has its stream reset', async (t) => {
  const session = await RawSession.open(t, app)
  const stream = await session.connect(`/relay/${newChannel()}`, 'spanza', { 'x-id': 'greedy' })
  const gone = left(app, 'greedy')
  // A tunnel that waits for its partner is read up to 64 KiB; behind that, its window stays closed.
  for (let sent = 0; sent < 20; sent++) session.send(frameTypes.DATA, 0, stream.id, Buffer.alloc(16384))
  await until(() => stream.isOver || session.goAwayCode !== undefined)
  t.equal(errorCodes[stream.resetCode ?? session.goAwayCode!], 'FLOW_CONTROL_ERROR')
  t.equal((await gone).reason, 'lost')
})

const wrongUpdates: Record<string, [increment: number, code: RegExp]> = {
  // Node 20 calls it an internal error.
  'of 0 bytes': [0, /^(?:PROTOCOL|INTERNAL)_ERROR$/],
  'beyond 2^31 - 1 bytes': [LARGEST_WINDOW, /^FLOW_CONTROL_ERROR$/]
}

for (const [title, [increment, code]] of Object.entries(wrongUpdates)) {
  t.test(`a window update ${title} breaks no more than its session`, async (t) => {
    const session = await RawSession.open(t, app)
    const stream = await session.connect(`/relay/${newChannel()}`, 'websocket', { 'x-id': 'wrong' })
    const other = await RawSession.open(t, app)
    const path = `/relay/${newChannel()}`
    const [from, to] = [await other.connect(path), await other.connect(path)]
    const gone = left(app, 'wrong')
    stream.allow(increment)
    await until(() => stream.isOver || session.goAwayCode !== undefined)
    t.match(errorCodes[stream.resetCode ?? session.goAwayCode!], code)
    t.equal((await gone).reason, 'lost')
    await from.send(message('a datagram'))
    t.equal(String(await readMessage(to)), 'a datagram')
  })
}

t.test('a peer whose window stays closed is let go after writeTimeout', async (t) => {
  const app = await startServer(t, { relay: { writeTimeout: 200 } })
  const session = await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: 0 } })
  const other = await RawSession.open(t, app)
  await session.connect('/relay/x', 'websocket', { 'x-id': 'stalled' })
  const from = await other.connect('/relay/x')
  const gone = left(app, 'stalled')
  for (let sent = 0; sent < 100; sent++) await from.send(message(Buffer.alloc(1200, 255)))
  t.match(await gone, { reason: 'write-deadline' })
  t.equal(peerOf(app, 'stalled'), undefined)
})
