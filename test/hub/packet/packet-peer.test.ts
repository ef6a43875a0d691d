import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { len16 } from '../../../lib/framing/len16.ts'
import { PING, PONG, wg } from '../../../lib/framing/wg.ts'
import { frames } from '../../helpers/fake-relay.ts'
import { detached, startRelay } from '../../helpers/relay.ts'
import { openTunnel, settle, until, type Tunnel } from '../../helpers/tunnel.ts'
import { initiation, transportData } from '../../helpers/wireguard-messages.ts'

/** Gives signs of life that ask for no answer. */
function keepAlive (t: Test, tunnel: Tunnel): void {
  const timer = setInterval(() => tunnel.write(Buffer.from([0xff, 0, 0, 0])), 10)
  t.teardown(() => clearInterval(timer))
}

// Liveness.

t.test('a ping is answered with its eight bytes', async (t) => {
  const app = await startRelay(t)
  const tunnel = await openTunnel(t, app)
  const payload = randomBytes(8)
  tunnel.write(Buffer.concat([Buffer.from([PING, 0, 0, 8]), payload]))
  t.same(await tunnel.controls.next(), { type: PONG, payload })
})

t.test('of many pings at once only the latest is answered', async (t) => {
  const app = await startRelay(t)
  const tunnel = await openTunnel(t, app)
  const pings = Array.from({ length: 1000 }, () => wg.keepalive())
  tunnel.write(Buffer.concat(pings))
  const last = pings.at(-1)!.subarray(4)
  await until(() => tunnel.controls.all.some(({ payload }) => payload.equals(last)))
  t.ok(tunnel.controls.all.length < 10, `${tunnel.controls.all.length} pongs`)
})

t.test('control frames that need no answer get none', async (t) => {
  const app = await startRelay(t)
  const tunnel = await openTunnel(t, app)
  tunnel.write(Buffer.concat([Buffer.from([PONG, 0, 0, 8]), randomBytes(8), wg.drain(1)!, Buffer.from([0xfe, 0, 0, 1, 0])]))
  await tunnel.roundTrip()
  t.equal(tunnel.controls.all.length, 1)
})

t.test('a silent tunnel gets keepalives where its protocol has them', async (t) => {
  const app = await startRelay(t, { keepaliveInterval: 50 })
  const [a, b] = [await openTunnel(t, app), await openTunnel(t, app, { framing: 'len16' })]
  const [uot, raw] = [await openTunnel(t, app, { protocol: 'UoTLV/1' }), await openTunnel(t, app, { framing: 'raw' })]
  const pings = await a.controls.take(4)
  await b.keepalives.take(4)
  t.ok(pings.every(({ type, payload }) => type === PING && payload.length === 8))
  t.equal(new Set(pings.map(({ payload }) => payload.toString('hex'))).size, 4)
  t.equal(uot.bytes.length, 0)
  t.equal(raw.bytes.length, 0)
})

t.test('a keepalive from a UoTLV/1 client is ignored', async (t) => {
  const app = await startRelay(t)
  const [a, uot] = [await openTunnel(t, app), await openTunnel(t, app, { protocol: 'UoTLV/1' })]
  const message = transportData(1)
  uot.write(Buffer.concat([len16.keepalive(), frames(len16, [message]), len16.keepalive()]))
  t.same(await a.datagrams.next(), message)
  await a.roundTrip()
  t.same(uot.bytes.length, 0)
  t.equal(app.relayHub.stats().datagramsIn, 1)
})

t.test('a tunnel that stays silent is closed, one that gives signs of life is not', async (t) => {
  const app = await startRelay(t, { keepaliveInterval: 50, keepaliveTimeout: 200 })
  const live = await openTunnel(t, app, { id: 'live' })
  keepAlive(t, live)
  const silent = await openTunnel(t, app, { id: 'silent' })
  const silent16 = await openTunnel(t, app, { id: 'silent16', framing: 'len16' })
  const infos = await Promise.all([detached(app, 'silent'), detached(app, 'silent16')])
  for (const info of infos) t.match(info, { reason: 'idle', text: 'nothing received for 200 ms' })
  await Promise.all([silent.ended, silent16.ended])
  t.same(silent.closing, { code: 4, text: 'nothing received for 200 ms' })
  await live.roundTrip()
  t.same(app.relayHub.peers().map(({ id }) => id), ['live'])
})

t.test('silence is normal for UoTLV/1 unless idleTimeout says otherwise', async (t) => {
  const patient = await startRelay(t, { keepaliveInterval: 20, keepaliveTimeout: 60 })
  const strict = await startRelay(t, { idleTimeout: 100 })
  await openTunnel(t, patient, { id: 'uot', protocol: 'UoTLV/1' })
  await openTunnel(t, patient, { id: 'wg' })
  await openTunnel(t, strict, { id: 'uot', protocol: 'UoTLV/1' })
  const silent = await openTunnel(t, strict, { id: 'wg' })
  const [, info] = await Promise.all([detached(patient, 'wg'), detached(strict, 'uot')])
  t.match(info, { reason: 'idle', text: 'nothing received for 100 ms' })
  t.same(patient.relayHub.peers().map(({ id }) => id), ['uot'])
  await silent.roundTrip()
})

// What is wrong with the bytes.

const unstamped = transportData(1, 100)
const faults: Array<[string, Buffer, number, RegExp]> = [
  ['transport data without a length', unstamped, 2, /without its length/],
  ['transport data with a length below 32', Buffer.from([4, 0, 0, 31]), 1, /transport data of 31 bytes/],
  ['transport data with a length above 65535', Buffer.from([4, 1, 0, 0]), 1, /transport data of 65536 bytes/],
  ['an escaped datagram of no bytes', Buffer.from([0, 0, 0, 0]), 1, /an escaped datagram of 0 bytes/],
  ['an escaped datagram above 65535 bytes', Buffer.from([0, 1, 0, 0]), 1, /an escaped datagram of 65536 bytes/],
  ['an unknown type', Buffer.from([0x16, 3, 1, 2]), 1, /an unknown frame, 16030102/],
  ['a handshake message with its reserved bytes in use', Buffer.from([1, 0, 0, 1]), 1, /an unknown frame, 01000001/],
  ['a ping of a wrong length', Buffer.from([PING, 0, 0, 7]), 1, /control frame 0x80 of 7 bytes/],
  ['an unknown control frame that is too long', Buffer.from([0xf0, 0, 4, 1]), 1, /control frame 0xf0 of 1025 bytes/]
]

t.test('a framing error closes that tunnel, says why, and touches no other', async (t) => {
  const app = await startRelay(t)
  const [a, b] = [await openTunnel(t, app), await openTunnel(t, app)]
  for (const [name, bytes, code, text] of faults) {
    const bad = await openTunnel(t, app, { id: 'bad' })
    const leaving = detached(app, 'bad')
    bad.write(bytes)
    const info = await leaving
    t.equal(info.reason, code === 2 ? 'unstamped' : 'protocol-error', name)
    t.match(info.text, text, name)
    await bad.closed
    t.same(bad.closing, { code, text: info.text }, name)
    t.equal(bad.controls.all.length, 1, name)
  }
  const message = transportData(1)
  a.send(message)
  await settle(a, b)
  t.same(b.take(), [message])
  t.same(app.relayHub.stats().detached, { unstamped: 1, 'protocol-error': faults.length - 1 })
})

t.test('what came before a framing error still arrives', async (t) => {
  const app = await startRelay(t)
  const [a, b] = [await openTunnel(t, app), await openTunnel(t, app)]
  const message = transportData(1)
  a.write(Buffer.concat([frames(wg, [message]), Buffer.from([9, 9, 9, 9]), frames(wg, [message])]))
  await a.closed
  await b.roundTrip()
  t.same(b.take(), [message])
})

t.test('an end inside a frame is told from one between frames', async (t) => {
  const app = await startRelay(t)
  for (const framing of ['wg', 'len16'] as const) {
    const cut = await openTunnel(t, app, { id: 'cut', framing })
    let leaving = detached(app, 'cut')
    cut.socket.end(frames(framing === 'wg' ? wg : len16, [transportData(1, 500)]).subarray(0, 100))
    t.match(await leaving, { reason: 'protocol-error', text: 'the stream ended inside a frame' })
    await cut.closed
    if (framing === 'wg') t.same(cut.closing, { code: 1, text: 'the stream ended inside a frame' })
    else t.equal(cut.bytes.length, 0)

    const whole = await openTunnel(t, app, { id: 'whole', framing })
    leaving = detached(app, 'whole')
    whole.socket.end()
    t.match(await leaving, { reason: 'ended', text: 'the client ended the tunnel' })
    await whole.closed
    t.equal(whole.bytes.length, 0)
  }
})

t.test('what a client says when it leaves is noted, without control characters', async (t) => {
  const app = await startRelay(t)
  const tunnel = await openTunnel(t, app, { id: 'polite' })
  const leaving = detached(app, 'polite')
  tunnel.socket.end(wg.closing(6, 'good\u001b[2J\nbye')!)
  t.match(await leaving, { reason: 'ended', text: 'the client closed: good[2Jbye' })
})

t.test('a connection that breaks is noted, also behind a frame that was cut', async (t) => {
  const app = await startRelay(t)
  const tunnel = await openTunnel(t, app, { id: 'broken' })
  tunnel.write(frames(wg, [transportData(1, 500)]).subarray(0, 100))
  await until(() => app.relayHub.peers()[0]!.bytesIn === 100)
  const leaving = detached(app, 'broken')
  tunnel.socket.resetAndDestroy()
  t.match(await leaving, { reason: 'lost', text: /ECONNRESET/ })
  t.same(app.relayHub.peers(), [])
})

t.test('a datagram above the limit is dropped and counted, and the tunnel lives', async (t) => {
  const app = await startRelay(t, { maxPacketSize: 1000 })
  for (const framing of ['wg', 'len16'] as const) {
    const path = `/relay/${framing}`
    const [a, b] = [await openTunnel(t, app, { path, framing }), await openTunnel(t, app, { path })]
    const right = transportData(2, 1000)
    a.send(transportData(1, 1001), randomBytes(65535), right)
    t.same(await b.datagrams.next(), right)
    await b.roundTrip()
    t.equal(b.datagrams.all.length, 1)
  }
  t.match(app.relayHub.stats(), { datagramsIn: 6, datagramsOut: 2, drops: { 'too-large': 4 } })
})

// A peer that does not read.

/** Data with a number in it. */
function numbered (number: number): Buffer {
  const message = transportData(1, 1400)
  message.writeUInt32BE(number, 16)
  return message
}

/** Sends numbered data until some had to be dropped. @returns how many were sent */
async function overwhelm (app: FastifyInstance, sender: Tunnel, from = 0): Promise<number> {
  let count = from
  const before = app.relayHub.stats().drops['queue-full']
  while (app.relayHub.stats().drops['queue-full'] < before + 100) {
    sender.send(...Array.from({ length: 40 }, () => numbered(count++)))
    await sender.roundTrip()
  }
  return count
}

t.test('a peer that does not read loses the oldest data, gets handshake messages first, and delays nobody', async (t) => {
  const app = await startRelay(t)
  const [a, mute] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'mute', reads: false })]
  const count = await overwhelm(app, a)

  const [c, d] = [await openTunnel(t, app, { path: '/relay/away' }), await openTunnel(t, app, { path: '/relay/away' })]
  const message = transportData(1)
  c.send(message)
  t.same(await d.datagrams.next(), message, 'another channel goes on')
  await a.roundTrip()

  const handshake = initiation(7)
  a.send(handshake)
  await a.roundTrip()
  const dropped = app.relayHub.stats().drops['queue-full']
  mute.read()
  await until(() => mute.datagrams.all.length === count + 1 - dropped)
  const kinds = mute.datagrams.all.map((datagram) => datagram[0] === 1 ? -1 : datagram.readUInt32BE(16))
  const position = kinds.indexOf(-1)
  const [written, queued] = [kinds.slice(0, position), kinds.slice(position + 1)]
  t.same(written, Array.from({ length: position }, (_, number) => number), 'what had been written already, without a gap')
  t.ok(queued.length > 100 && queued.length <= 512)
  t.same(queued, queued.map((_, i) => count - queued.length + i), 'then the newest')
  t.same(mute.datagrams.all[position], handshake)

  await settle(a, mute)
  const stats = app.relayHub.stats()
  t.equal(stats.datagramsIn, stats.datagramsOut + stats.drops['queue-full'])
  const again = transportData(9)
  a.send(again)
  await settle(a, mute)
  t.same(mute.datagrams.all.at(-1), again, 'afterwards it is a peer like any other')
})

t.test('a peer of the same channel is not delayed by one that does not read', async (t) => {
  const app = await startRelay(t)
  const [a, b] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'b' })]
  const mute = await openTunnel(t, app, { id: 'mute', reads: false })
  // Every peer without a key sees every initiation, so that this one, too, has a session with a.
  for (const [tunnel, index] of [[b, 20], [mute, 30]] as const) {
    a.send(initiation(index))
    await a.roundTrip()
    const answer = Buffer.alloc(92)
    answer[0] = 2
    answer.writeUInt32LE(index + 1, 4)
    answer.writeUInt32LE(index, 8)
    tunnel.send(answer)
    t.same(await a.datagrams.next(), answer)
  }
  await settle(a, b)
  b.take()
  const toMute = Array.from({ length: 40 }, () => transportData(31, 1400))
  while (app.relayHub.stats().drops['queue-full'] === 0) {
    const toB = transportData(21)
    a.send(...toMute, toB)
    t.ok((await b.datagrams.next()).length > 0)
    await a.roundTrip()
  }
  t.ok(mute.chunks.length === 0)
})

t.test('a peer that takes nothing for too long is closed', async (t) => {
  const app = await startRelay(t, { writeTimeout: 100 })
  const [a, mute] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'mute', reads: false })]
  const leaving = detached(app, 'mute')
  const count = await overwhelm(app, a)
  t.match(await leaving, { reason: 'write-deadline', text: 'nothing could be written for 100 ms' })
  const stats = app.relayHub.stats()
  t.equal(stats.drops['queue-full'] + stats.drops['peer-closed'] + stats.datagramsOut, count)
  t.ok(stats.drops['peer-closed'] > 0)
  await a.roundTrip()
  mute.read()
  await mute.closed
})
