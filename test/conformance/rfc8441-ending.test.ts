import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { CLOSING, readClosing, wg } from '../../lib/framing/wg.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { serverCertificate } from '../helpers/relay-app.ts'
import { decode } from '../helpers/sink.ts'
import { until } from '../helpers/tunnel.ts'
import { errorCodes, RawSession, type RawStream } from './raw-http2.ts'
import { left, newChannel, startServer } from './server.ts'
import { closeFrame, frame, message, opcodes, readClose, readFrame, readMessage } from './websocket-frames.ts'

// How streams end: END_STREAM is the end of one direction, RST_STREAM breaks off, a Close frame says goodbye (RFC 8441,
// section 5; RFC 6455, section 7). TLS, because both versions of HTTP then have one port.

const resetters = createServer((socket) => { targets.push(socket) }).listen(0, '127.0.0.1')
const targets: Socket[] = []
t.teardown(() => resetters.close())

const app = await startServer(t, {
  server: { http2: true, https: { ...serverCertificate(), allowHTTP1: true } },
  setUp: (app) => { app.relay('/target', { target: `tcp://127.0.0.1:${(resetters.address() as AddressInfo).port}`, identify: () => ({ id: 'target' }) }) }
})

const [CANCEL, CONNECT_ERROR] = [errorCodes.indexOf('CANCEL'), errorCodes.indexOf('CONNECT_ERROR')]

const kinds: Record<string, [protocol: string, headers: Record<string, string>]> = {
  'a WebSocket': ['websocket', {}],
  'a WebSocket as a stream': ['websocket', { 'sec-websocket-protocol': 'spanza.raw.v1' }],
  'a wg tunnel': ['spanza', { 'spanza-framing': 'wg' }],
  'a bare tunnel': ['spanza', {}]
}

async function open (session: RawSession, path: string, kind: keyof typeof kinds, id: string): Promise<RawStream> {
  const [protocol, headers] = kinds[kind]!
  return await session.connect(path, protocol, { 'x-id': id, ...headers })
}

async function openSession (t: Test): Promise<RawSession> {
  return await RawSession.open(t, app, { tls: true })
}

/** A bare tunnel over HTTP/1.1, which leaves it to the test to end its side, and the TCP connection under its TLS. */
async function openHttp1 (t: Test, path: string, id: string): Promise<{ client: RawClient, tcp: Socket }> {
  const tcp = connect({ port: (app.server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
  t.teardown(() => tcp.destroy())
  const socket = connectTls({ socket: tcp, rejectUnauthorized: false })
  const client = new RawClient(socket)
  await once(socket, 'secureConnect')
  await client.upgrade(t, path, { headers: { 'X-Id': id } })
  return { client, tcp }
}

/** Waits until the server has ended or reset the stream. */
async function over (stream: RawStream): Promise<RawStream> {
  await until(() => stream.isOver)
  return stream
}

t.test('a client closes: its Close frame is answered, and END_STREAM follows', async (t) => {
  const session = await openSession(t)
  const stream = await open(session, `/relay/${newChannel()}`, 'a WebSocket', 'a')
  const gone = left(app, 'a')
  await stream.send(closeFrame(1000, 'bye'))
  t.equal((await readClose(stream)).code, 1000)
  t.same(await gone, { reason: 'ended', text: 'the client closed its WebSocket' })
  stream.end()
  await over(stream)
  t.ok(stream.hasEnded)
  t.equal(stream.unread.length, 0, 'nothing follows the Close frame')
  await session.roundTrip()
  t.notOk(stream.resetCode, 'the stream is not broken off')
})

t.test('a client closes, and ends its side in the same frame', async (t) => {
  const session = await openSession(t)
  const stream = await open(session, `/relay/${newChannel()}`, 'a WebSocket', 'a')
  const gone = left(app, 'a')
  await stream.send(Buffer.concat([message('still to be read'), closeFrame(3000)]), true)
  t.equal((await readClose(stream)).code, 3000)
  t.equal((await gone).reason, 'ended')
  await over(stream)
  t.ok(stream.hasEnded)
})

t.test('what comes before a Close frame is delivered', async (t) => {
  const session = await openSession(t)
  const path = `/relay/${newChannel()}`
  const to = await open(session, path, 'a WebSocket', 'b')
  const from = await open(session, path, 'a WebSocket', 'a')
  await from.send(Buffer.concat([message('last words'), closeFrame(1000), message('too late')]), true)
  t.equal(String(await readMessage(to)), 'last words')
  await over(from)
  await to.send(frame(opcodes.PING))
  t.equal((await readFrame(to)).first, 0x80 | opcodes.PONG, 'and nothing after it')
})

t.test('the relay closes: a Close frame says why, and END_STREAM follows the answer', async (t) => {
  const session = await openSession(t)
  const channel = newChannel()
  const stream = await open(session, `/relay/${channel}`, 'a WebSocket', 'a')
  const gone = left(app, 'a')
  t.equal(app.relayHub.disconnect({ channel, id: 'a' }, 'enough'), 1)
  t.same(await readClose(stream), { code: 4006, reason: 'enough' })
  t.same(await gone, { reason: 'disconnected', text: 'enough' })
  await stream.send(closeFrame(4006), true)
  await over(stream)
  t.ok(stream.hasEnded)
})

t.test('a client that does not answer a Close frame is not waited for', async (t) => {
  const session = await openSession(t)
  const channel = newChannel()
  const stream = await open(session, `/relay/${channel}`, 'a WebSocket', 'a')
  app.relayHub.disconnect({ channel, id: 'a' })
  await readClose(stream)
  await over(stream)
  await open(session, `/relay/${newChannel()}`, 'a WebSocket', 'b')
  t.pass('and the session goes on')
})

t.test('a newer tunnel of the same identity takes over, on the same session', async (t) => {
  const session = await openSession(t)
  const path = `/relay/${newChannel()}`
  const older = await open(session, path, 'a WebSocket', 'a')
  const gone = left(app, 'a')
  const newer = await open(session, path, 'a WebSocket', 'a')
  t.equal((await readClose(older)).code, 4003)
  t.equal((await gone).reason, 'replaced')
  await newer.send(frame(opcodes.PING))
  t.equal((await readFrame(newer)).first, 0x80 | opcodes.PONG)
})

for (const [title, sent] of Object.entries({ 'without a Close frame': Buffer.alloc(0), 'within a frame': message('a datagram').subarray(0, 7) })) {
  t.test(`a WebSocket that ends its stream ${title} is lost`, async (t) => {
    const session = await openSession(t)
    const stream = await open(session, `/relay/${newChannel()}`, 'a WebSocket', 'a')
    const gone = left(app, 'a')
    await stream.send(sent, true)
    t.same(await gone, { reason: 'lost', text: 'the connection was closed without a Close frame' })
    await over(stream)
    await open(session, `/relay/${newChannel()}`, 'a WebSocket', 'b')
  })
}

for (const kind of Object.keys(kinds)) {
  t.test(`${kind} that the client resets is lost, for the reason that its code names`, async (t) => {
    const session = await openSession(t)
    const { detached } = app.relayHub.stats()
    for (const [code, name] of [...errorCodes.entries(), [0x99, 'code 153'] as const]) {
      const stream = await open(session, `/relay/${newChannel()}`, kind, name)
      const gone = left(app, name)
      stream.reset(code)
      t.same(await gone, { reason: 'lost', text: `the client reset the stream: ${name}` })
    }
    t.equal(app.relayHub.stats().detached['lost'], (detached['lost'] ?? 0) + errorCodes.length + 1)
    await open(session, `/relay/${newChannel()}`, kind, 'z')
    t.equal(session.goAwayCode, undefined, 'the session goes on')
  })
}

t.test('a stream reset within a message leaves nothing of it', async (t) => {
  const session = await openSession(t)
  const path = `/relay/${newChannel()}`
  const to = await open(session, path, 'a WebSocket', 'b')
  const from = await open(session, path, 'a WebSocket', 'a')
  await from.send(message('cut off').subarray(0, 9))
  from.reset(CANCEL)
  const again = await open(session, path, 'a WebSocket', 'a')
  await again.send(message('whole'))
  t.equal(String(await readMessage(to)), 'whole')
})

t.test('when the connection breaks, all its tunnels are lost', async (t) => {
  const session = await openSession(t)
  const ids = Object.keys(kinds)
  for (const kind of ids) await open(session, `/relay/${newChannel()}`, kind, kind)
  const gone = Promise.all(ids.map(async (id) => (await left(app, id)).reason))
  session.socket.destroy()
  t.same(await gone, ids.map(() => 'lost'))
})

t.test('a wg tunnel is told why it is closed, and its stream ends', async (t) => {
  const session = await openSession(t)
  const channel = newChannel()
  const stream = await open(session, `/relay/${channel}`, 'a wg tunnel', 'a')
  app.relayHub.disconnect({ channel, id: 'a' }, 'enough')
  stream.end()
  await over(stream)
  t.ok(stream.hasEnded)
  const { sink } = decode(wg, [stream.unread])
  const { type, payload } = sink.controls[0]!
  t.equal(type, CLOSING)
  t.match(readClosing(payload, 0, payload.length), { text: 'enough' })
})

t.test('a wg tunnel that ends its stream is ended', async (t) => {
  const session = await openSession(t)
  const stream = await open(session, `/relay/${newChannel()}`, 'a wg tunnel', 'a')
  const gone = left(app, 'a')
  stream.end()
  t.same(await gone, { reason: 'ended', text: 'the client ended the tunnel' })
  await over(stream)
  t.ok(stream.hasEnded)
})

t.test('a bare tunnel that waits and is disconnected ends', async (t) => {
  const session = await openSession(t)
  const channel = newChannel()
  const stream = await open(session, `/relay/${channel}`, 'a bare tunnel', 'a')
  app.relayHub.disconnect({ channel, id: 'a' })
  await over(stream)
  t.ok(stream.hasEnded)
})

t.test('DATA behind END_STREAM is an error of that stream', async (t) => {
  const session = await openSession(t)
  const path = `/relay/${newChannel()}`
  const stream = await open(session, path, 'a bare tunnel', 'a')
  await open(session, path, 'a bare tunnel', 'b')
  stream.end()
  await stream.send(Buffer.from('more'))
  await until(() => stream.resetCode !== undefined || session.goAwayCode !== undefined)
  t.equal(errorCodes[stream.resetCode ?? session.goAwayCode!], 'STREAM_CLOSED')
})

t.test('half-close: each direction of a pair ends for itself', async (t) => {
  for (const first of ['HTTP/2', 'HTTP/1.1']) {
    await t.test(`between HTTP/2 and HTTP/1.1, ${first} first`, async (t) => {
      const session = await openSession(t)
      const path = `/relay/${newChannel()}`
      const two = await open(session, path, 'a bare tunnel', 'two')
      const { client: one } = await openHttp1(t, path, 'one')
      const gone = Promise.all([left(app, 'one'), left(app, 'two')])
      if (first === 'HTTP/2') {
        await two.send(Buffer.from('from two'), true)
        t.equal(String(await one.readToEnd()), 'from two')
        await one.send('from one, ')
        t.equal(String(await two.read(10)), 'from one, ')
        t.notOk(two.isOver, 'the other direction goes on')
        one.socket.end('and the end')
        t.equal(String(await two.readToEnd()), 'and the end')
      } else {
        one.socket.end('from one')
        t.equal(String(await two.readToEnd()), 'from one')
        t.ok(two.hasEnded)
        await two.send(Buffer.from('from two, '))
        t.equal(String(await one.read(10)), 'from two, ')
        await two.send(Buffer.from('and the end'), true)
        t.equal(String(await one.readToEnd()), 'and the end')
      }
      t.match(await gone, [{ reason: 'ended' }, { reason: 'ended' }])
      t.notOk(two.resetCode)
      t.equal(await one.closed, undefined, 'in good order')
    })
  }

  await t.test('between two streams of a session', async (t) => {
    const session = await openSession(t)
    const path = `/relay/${newChannel()}`
    const a = await open(session, path, 'a bare tunnel', 'a')
    const b = await open(session, path, 'a bare tunnel', 'b')
    const gone = Promise.all([left(app, 'a'), left(app, 'b')])
    await a.send(Buffer.from('from a'), true)
    t.equal(String(await b.readToEnd()), 'from a')
    t.ok(b.hasEnded)
    await b.send(Buffer.alloc(100_000, 'b'), true)
    t.equal((await a.readToEnd()).length, 100_000)
    t.match(await gone, [{ reason: 'ended' }, { reason: 'ended' }])
    await session.roundTrip()
    t.notOk(a.resetCode)
    t.notOk(b.resetCode)
  })

  await t.test('a Close frame is the end towards a bare tunnel, and what comes back before is read', async (t) => {
    const session = await openSession(t)
    const path = `/relay/${newChannel()}`
    const webSocket = await open(session, path, 'a WebSocket as a stream', 'a')
    const bare = await open(session, path, 'a bare tunnel', 'b')
    await bare.send(Buffer.from('hello'))
    t.equal(String(await readMessage(webSocket)), 'hello')
    await webSocket.send(Buffer.concat([message('bye'), closeFrame(4321, 'not for everybody')]), true)
    t.equal(String(await bare.readToEnd()), 'bye')
    t.ok(bare.hasEnded)
    bare.end()
    await over(webSocket)
  })

  await t.test('the end of a bare tunnel is a Close frame that says all is well', async (t) => {
    const session = await openSession(t)
    const path = `/relay/${newChannel()}`
    const webSocket = await open(session, path, 'a WebSocket as a stream', 'a')
    const bare = await open(session, path, 'a bare tunnel', 'b')
    const gone = Promise.all([left(app, 'a'), left(app, 'b')])
    await bare.send(Buffer.from('bye'), true)
    t.equal(String(await readMessage(webSocket)), 'bye')
    t.same(await readClose(webSocket), { code: 1000, reason: '' })
    await webSocket.send(closeFrame(1000), true)
    await over(bare)
    t.ok(bare.hasEnded)
    t.match(await gone, [{ reason: 'ended' }, { reason: 'ended' }])
  })

  await t.test('code and reason of a Close frame pass through to another WebSocket', async (t) => {
    const session = await openSession(t)
    const path = `/relay/${newChannel()}`
    const a = await open(session, path, 'a WebSocket as a stream', 'a')
    const b = await open(session, path, 'a WebSocket as a stream', 'b')
    await a.send(Buffer.concat([message('bye'), closeFrame(4321, 'grüße')]), true)
    t.equal(String(await readMessage(b)), 'bye')
    t.same(await readClose(b), { code: 4321, reason: 'grüße' })
    await b.send(closeFrame(4321), true)
    await over(b)
  })
})

t.test('what breaks one tunnel of a pair breaks the other', async (t) => {
  const breakers: Record<string, (t: Test, path: string) => Promise<() => void>> = {
    'a stream that is reset': async (t, path) => {
      const stream = await open(await openSession(t), path, 'a bare tunnel', 'broken')
      return () => stream.reset(CANCEL)
    },
    'a connection of HTTP/1.1 that breaks': async (t, path) => {
      const { tcp } = await openHttp1(t, path, 'broken')
      return () => tcp.resetAndDestroy()
    },
    'a WebSocket whose stream is reset': async (t, path) => {
      const stream = await open(await openSession(t), path, 'a WebSocket as a stream', 'broken')
      return () => stream.reset(CANCEL)
    },
    'a WebSocket that ends its stream without a Close frame': async (t, path) => {
      const stream = await open(await openSession(t), path, 'a WebSocket as a stream', 'broken')
      return () => stream.end()
    }
  }
  for (const [title, connectBreaker] of Object.entries(breakers)) {
    await t.test(title, async (t) => {
      for (const kind of ['a bare tunnel', 'a WebSocket as a stream', 'HTTP/1.1']) {
        const path = `/relay/${newChannel()}`
        const breakOff = await connectBreaker(t, path)
        const gone = Promise.all([left(app, 'broken'), left(app, 'partner')])
        if (kind === 'HTTP/1.1') {
          const { client: partner, tcp } = await openHttp1(t, path, 'partner')
          breakOff()
          await partner.readToEnd()
          tcp.destroy()
        } else {
          const partner = await open(await openSession(t), path, kind, 'partner')
          breakOff()
          if (kind === 'a bare tunnel') {
            await over(partner)
            t.equal(partner.resetCode, CONNECT_ERROR)
            t.notOk(partner.hasEnded, 'what is cut short does not look like the end')
          } else {
            t.equal((await readClose(partner)).code, 1011)
          }
        }
        t.match(await gone, [{ reason: 'lost' }, { reason: 'partner-lost' }], `towards ${kind}`)
      }
    })
  }
})

t.test('a paired tunnel that is disconnected is reset, and so is the other one', async (t) => {
  const session = await openSession(t)
  const channel = newChannel()
  const a = await open(session, `/relay/${channel}`, 'a bare tunnel', 'a')
  const b = await open(session, `/relay/${channel}`, 'a bare tunnel', 'b')
  const gone = Promise.all([left(app, 'a'), left(app, 'b')])
  app.relayHub.disconnect({ channel, id: 'a' }, 'enough')
  await over(a)
  await over(b)
  t.equal(a.resetCode, CANCEL)
  t.equal(b.resetCode, CONNECT_ERROR)
  t.notOk(a.hasEnded || b.hasEnded)
  t.match(await gone, [{ reason: 'disconnected', text: 'enough' }, { reason: 'partner-lost' }])
})

t.test('a target that breaks resets the stream; one that ends, ends it', async (t) => {
  const session = await openSession(t)
  for (const isBroken of [true, false]) {
    const stream = await session.connect('/target', 'spanza')
    await stream.send(Buffer.from('hello'))
    await until(() => targets.length > 0)
    const target = targets.pop()!
    target.on('error', () => {})
    const gone = left(app, 'target')
    if (isBroken) target.resetAndDestroy()
    else target.end('bye')
    await over(stream)
    if (isBroken) {
      t.equal(stream.resetCode, CONNECT_ERROR)
      t.notOk(stream.hasEnded)
      t.equal((await gone).reason, 'target-failed')
    } else {
      t.ok(stream.hasEnded)
      t.equal(String(stream.unread), 'bye')
      stream.end()
      t.equal((await gone).reason, 'ended')
    }
  }
})

t.test('a stream that nobody joins in time is closed as what it is', async (t) => {
  const app = await startServer(t, { relay: { pairTimeout: 100 } })
  const session = await RawSession.open(t, app)
  const bare = await session.connect('/relay/x', 'spanza', { 'x-id': 'bare' })
  const webSocket = await session.connect('/relay/y', 'websocket', { 'sec-websocket-protocol': 'spanza.raw.v1' })
  t.equal((await readClose(webSocket)).code, 1013)
  await over(bare)
  t.ok(bare.hasEnded)
  t.equal(app.relayHub.stats().detached['pair-timeout'], 2)
})
