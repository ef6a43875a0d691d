import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import { SeededRandom } from '../helpers/random.ts'
import { until } from '../helpers/tunnel.ts'
import { framingErrors, limitErrors, validCloseCodes } from './framing-errors.ts'
import { flags, frameTypes, RawSession, type RawStream } from './raw-http2.ts'
import { left, newChannel, peerOf, startServer } from './server.ts'
import { closeFrame, closePayload, fragments, frame, message, opcodes, readClose, readFrame, readMessage } from './websocket-frames.ts'

// Frames of RFC 6455 within the DATA frames of a stream (RFC 8441, section 5), sent exactly as they are cut here.

const app = await startServer(t)
const BINARY = 0x80 | opcodes.BINARY
const PONG = 0x80 | opcodes.PONG

interface Pair {
  session: RawSession
  from: RawStream
  to: RawStream
}

/** Two WebSockets on one session: what one sends, the other gets. */
async function openPair (t: Test): Promise<Pair> {
  const session = await RawSession.open(t, app)
  const path = `/relay/${newChannel()}`
  return { session, from: await session.connect(path), to: await session.connect(path) }
}

t.test('a message is passed on as one unmasked frame', async (t) => {
  const { from, to } = await openPair(t)
  await from.send(message('a datagram'))
  const { first, payload } = await readFrame(to)
  t.equal(first, BINARY)
  t.equal(String(payload), 'a datagram')
})

t.test('a message is put together that is cut in two DATA frames at any byte', async (t) => {
  const { from, to } = await openPair(t)
  for (const length of [20, 200]) {
    const datagram = randomBytes(length)
    const bytes = message(datagram)
    for (let cut = 0; cut <= bytes.length; cut++) {
      await from.send(bytes.subarray(0, cut))
      await from.send(bytes.subarray(cut))
      if (!(await readMessage(to)).equals(datagram)) t.fail(`cut at ${cut}`)
    }
  }
  t.pass('and nothing is lost or made up')
})

t.test('a message is put together of DATA frames of one byte, with empty ones between', async (t) => {
  const { from, to } = await openPair(t)
  const datagram = randomBytes(300)
  for (const byte of message(datagram)) {
    await from.send(Buffer.from([byte]))
    await from.send(Buffer.alloc(0))
  }
  t.same(await readMessage(to), datagram)
})

t.test('messages are taken apart that come joined in DATA frames, cut at any byte', async (t) => {
  const { from, to } = await openPair(t)
  const datagrams = [1, 125, 3].map((length) => randomBytes(length))
  const bytes = Buffer.concat(datagrams.map((datagram) => message(datagram)))
  for (let cut = 0; cut <= bytes.length; cut++) {
    await from.send(bytes.subarray(0, cut))
    await from.send(bytes.subarray(cut))
    for (const datagram of datagrams) {
      if (!(await readMessage(to)).equals(datagram)) t.fail(`cut at ${cut}`)
    }
  }
  t.pass()
})

t.test('1000 messages in one DATA frame come out in order', async (t) => {
  const { from, to } = await openPair(t)
  const datagrams = Array.from({ length: 1000 }, (_, index) => Buffer.from([index >> 8, index & 255, 255]))
  await from.send(Buffer.concat(datagrams.map((datagram) => message(datagram))))
  for (const datagram of datagrams) t.same(await readMessage(to), datagram)
})

t.test('messages of every kind of length are passed on', async (t) => {
  const { from, to } = await openPair(t)
  for (const length of [1, 2, 125, 126, 127, 1000, 16383, 16384, 16385, 65534, 65535]) {
    const datagram = randomBytes(length)
    datagram[0] = 255
    await from.send(message(datagram))
    t.ok((await readMessage(to)).equals(datagram), `${length} bytes`)
  }
})

t.test('DATA frames may be padded', async (t) => {
  const { session, from, to } = await openPair(t)
  for (const padding of [0, 1, 255]) {
    const bytes = message(`padded by ${padding}`)
    session.send(frameTypes.DATA, flags.PADDED, from.id, Buffer.concat([Buffer.from([padding]), bytes, Buffer.alloc(padding)]))
    t.equal(String(await readMessage(to)), `padded by ${padding}`)
  }
})

t.test('a mask of zeros, of ones and any other is taken off', async (t) => {
  const { from, to } = await openPair(t)
  for (const mask of [Buffer.alloc(4), Buffer.alloc(4, 255), Buffer.from([0, 0, 0, 1]), randomBytes(4), randomBytes(4)]) {
    for (const length of [1, 2, 3, 4, 5, 1001]) {
      const datagram = Buffer.alloc(length, 0xa5)
      await from.send(message(datagram, { mask }))
      t.ok((await readMessage(to)).equals(datagram), `${mask.toString('hex')}, ${length} bytes`)
    }
  }
})

t.test('a message in fragments is passed on in one piece', async (t) => {
  const { from, to } = await openPair(t)
  const datagram = Buffer.concat([Buffer.from([255]), randomBytes(99)])
  for (let cut = 0; cut <= datagram.length; cut++) {
    for (const each of fragments([datagram.subarray(0, cut), '', datagram.subarray(cut)])) await from.send(each)
    if (!(await readMessage(to)).equals(datagram)) t.fail(`in fragments of ${cut} and ${100 - cut} bytes`)
  }
  t.pass()
})

t.test('a message in fragments may be cut anywhere by DATA frames', async (t) => {
  const { from, to } = await openPair(t)
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  for (let i = 0; i < 50; i++) {
    const datagram = Buffer.concat([Buffer.from([255]), random.bytes(random.below(500))])
    const bytes = Buffer.concat(fragments(random.chunks(datagram, 100)))
    for (const chunk of random.chunks(bytes, 50)) await from.send(chunk)
    t.ok((await readMessage(to)).equals(datagram))
  }
})

t.test('a message in 1024 fragments is the largest number', async (t) => {
  const { from, to } = await openPair(t)
  await from.send(Buffer.concat(fragments(Array(1024).fill('x'))))
  t.equal(String(await readMessage(to)), 'x'.repeat(1024))
})

t.test('control frames between fragments are answered at once, and are no part of the message', async (t) => {
  const { from, to } = await openPair(t)
  const [first, second, third] = fragments(['data', 'gram', '!'])
  await from.send(first!)
  await from.send(frame(opcodes.PING, 'one'))
  t.match(await readFrame(from), { first: PONG, payload: Buffer.from('one') })
  await from.send(frame(opcodes.PONG, 'unasked'))
  await from.send(Buffer.concat([second!, frame(opcodes.PING, 'two'), third!]))
  t.match(await readFrame(from), { first: PONG, payload: Buffer.from('two') })
  t.equal(String(await readMessage(to)), 'datagram!')
})

t.test('a ping is answered with what it brought', async (t) => {
  const { from } = await openPair(t)
  for (const length of [0, 1, 125]) {
    const payload = randomBytes(length)
    const bytes = frame(opcodes.PING, payload)
    for (let cut = 0; cut <= bytes.length; cut += 1 + length) {
      await from.send(bytes.subarray(0, cut))
      await from.send(bytes.subarray(cut))
      const pong = await readFrame(from)
      t.equal(pong.first, PONG)
      t.ok(pong.payload.equals(payload), `${length} bytes`)
    }
  }
})

t.test('empty messages are dropped and counted', async (t) => {
  const { from, to } = await openPair(t)
  const before = app.relayHub.stats().drops
  await from.send(Buffer.concat([message(''), ...fragments(['', '', '']), message('not empty')]))
  t.equal(String(await readMessage(to)), 'not empty')
  t.equal(app.relayHub.stats().drops.empty, before.empty + 2)
})

t.test('messages above maxPacketSize are dropped and counted, and the WebSocket goes on', async (t) => {
  const app = await startServer(t, { relay: { maxPacketSize: 2048 } })
  const session = await RawSession.open(t, app)
  const [from, to] = [await session.connect('/relay/small', 'websocket', { 'x-id': 'from' }), await session.connect('/relay/small')]
  await from.send(Buffer.concat([2048, 2049, 65535, 1].map((length) => message(Buffer.alloc(length, 255)))))
  t.equal((await readMessage(to)).length, 2048)
  t.equal((await readMessage(to)).length, 1)
  t.equal(app.relayHub.stats().drops['too-large'], 2)
  t.match(peerOf(app, 'from'), { datagramsIn: 4, drops: 2 })
})

t.test('a length that is not told in the shortest way is understood all the same', async (t) => {
  const { from, to } = await openPair(t)
  await from.send(message('datagram', { lengthBytes: 2 }))
  await from.send(message('datagram', { lengthBytes: 8 }))
  t.equal(String(await readMessage(to)), 'datagram')
  t.equal(String(await readMessage(to)), 'datagram')
})

for (const [title, { sent, code }] of Object.entries({ ...framingErrors, ...limitErrors })) {
  t.test(`closed with ${code}: ${title}`, async (t) => {
    const session = await RawSession.open(t, app)
    const path = `/relay/${newChannel()}`
    const other = await session.connect(path)
    const stream = await session.connect(path, 'websocket', { 'x-id': 'wrong' })
    const gone = left(app, 'wrong')
    await stream.send(sent)
    t.equal((await readClose(stream)).code, code)
    t.equal((await gone).reason, 'protocol-error')
    await stream.send(closeFrame(code), true)
    await until(() => stream.isOver)
    t.ok(stream.hasEnded, 'the stream ends')
    t.equal(stream.unread.length, 0, 'and nothing follows the Close frame')
    await other.send(frame(opcodes.PING))
    t.equal((await readFrame(other)).first, PONG, 'the others go on')
  })
}

t.test('the close codes that are valid are answered with themselves', async (t) => {
  const session = await RawSession.open(t, app)
  for (const code of validCloseCodes) {
    const stream = await session.connect(`/relay/${newChannel()}`, 'websocket', { 'x-id': String(code) })
    const gone = left(app, String(code))
    await stream.send(frame(opcodes.CLOSE, closePayload(code, 'bye: äöü €')))
    t.equal((await readClose(stream)).code, code)
    t.same(await gone, { reason: 'ended', text: 'the client closed its WebSocket' })
  }
})

t.test('a Close frame without a code is answered with one', async (t) => {
  const session = await RawSession.open(t, app)
  const stream = await session.connect(`/relay/${newChannel()}`, 'websocket', { 'x-id': 'a' })
  const gone = left(app, 'a')
  await stream.send(frame(opcodes.CLOSE))
  const { first } = await readFrame(stream)
  t.equal(first, 0x80 | opcodes.CLOSE)
  t.equal((await gone).reason, 'ended')
})
