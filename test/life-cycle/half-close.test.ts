import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { DetachInfo, PeerInfo } from '../../lib/index.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { serverCertificate, startApp, testJoined } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

// The end of a stream and the break of a connection, over TCP and over TLS: a bare tunnel hands both on as what they are.

const ALERT = 21

/** What a client is connected through: it keeps what the server sends as it is on the wire. */
interface Wire {
  /** The client's TCP connection. */
  socket: Socket
  fromServer: Buffer[]
}

interface Bare extends Wire {
  client: RawClient
  /** How often the end of the stream was told. */
  ends: number
}

async function startRelay (t: Test, tls: boolean): Promise<FastifyInstance> {
  return await startApp(t, (app) => {
    app.relay('/relay/:channel', { identify: ({ headers }) => ({ id: headers['x-id'] as string }) })
  }, { server: { ...(tls && { https: serverCertificate() }) }, relay: { handshakesPerSecond: 10_000 } })
}

/** A connection to the app by way of a forwarder. */
async function wireTo (t: Test, app: FastifyInstance): Promise<Wire> {
  const fromServer: Buffer[] = []
  const forwarder = createServer({ allowHalfOpen: true }, (near) => {
    const far = connect({ port: (app.server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    t.teardown(() => { near.destroy(); far.destroy() })
    far.on('data', (chunk: Buffer) => fromServer.push(chunk))
    near.pipe(far)
    far.pipe(near)
    near.on('error', () => far.resetAndDestroy())
    far.on('error', () => near.resetAndDestroy())
  }).listen(0, '127.0.0.1')
  t.teardown(() => forwarder.close())
  await once(forwarder, 'listening')
  const socket = connect({ port: (forwarder.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  return { socket, fromServer }
}

async function open (t: Test, app: FastifyInstance, tls: boolean, channel: string, id: string): Promise<Bare> {
  const wire = await wireTo(t, app)
  // TLS 1.2 shows the kind of each record.
  const socket = tls ? connectTls({ socket: wire.socket, rejectUnauthorized: false, maxVersion: 'TLSv1.2', allowHalfOpen: true } as object) : wire.socket
  wire.socket.on('error', () => {})
  t.teardown(() => { socket.destroy(); wire.socket.destroy() })
  const bare = { ...wire, client: new RawClient(socket), ends: 0 }
  socket.on('end', () => { bare.ends++ })
  await bare.client.upgrade(t, `/relay/${channel}`, { headers: { 'X-Id': id } })
  return bare
}

async function openPair (t: Test, app: FastifyInstance, tls: boolean, channel = 'home'): Promise<[Bare, Bare]> {
  return [await open(t, app, tls, channel, 'a'), await open(t, app, tls, channel, 'b')]
}

/** The kinds of the TLS records that came from the server. */
function recordTypes ({ fromServer }: Wire): number[] {
  const bytes = Buffer.concat(fromServer)
  const types: number[] = []
  for (let at = 0; at + 5 <= bytes.length; at += 5 + bytes.readUInt16BE(at + 3)) types.push(bytes[at]!)
  return types
}

/** The peers that leave, by their id. */
function departures (app: FastifyInstance): Record<string, string> {
  const left: Record<string, string> = {}
  app.relayHub.on('detach', ({ id }: PeerInfo, { reason }: DetachInfo) => { left[id] = reason })
  return left
}

for (const tls of [false, true]) {
  t.test(tls ? 'over TLS' : 'over TCP', async (t) => {
    for (const [earlyIndex, side] of [[0, 'that came first'], [1, 'that came second']] as const) {
      await t.test(`what the other one sends after the end of the one ${side} arrives whole, in order, and ends once`, async (t) => {
        const app = await startRelay(t, tls)
        const left = departures(app)
        const pair = await openPair(t, app, tls)
        const [early, late] = [pair[earlyIndex], pair[1 - earlyIndex]!]
        const question = randomBytes(300_000)
        early.client.socket.end(question)
        t.ok((await late.client.readToEnd()).equals(question), 'all that went before the end')
        const parts = Array.from({ length: 40 }, () => randomBytes(1 + Math.floor(Math.random() * 50_000)))
        for (const part of parts) {
          await late.client.send(part)
          await new Promise((resolve) => setImmediate(resolve))
        }
        await until(() => early.client.unread.length === Buffer.concat(parts).length)
        t.equal(early.ends, 0, 'nothing has ended in this direction')
        t.same(left, {})
        late.client.socket.end('.')
        t.ok((await early.client.readToEnd()).equals(Buffer.concat([...parts, Buffer.from('.')])))
        await Promise.all([early.client.closed, late.client.closed])
        t.same([early.ends, late.ends], [1, 1])
        await until(() => Object.keys(left).length === 2)
        t.same(left, { a: 'ended', b: 'ended' })
        if (tls) for (const bare of pair) t.equal(recordTypes(bare).at(-1), ALERT, 'close_notify')
      })

      await t.test(`a reset by the one ${side} breaks the other tunnel, and nobody else's`, async (t) => {
        const app = await startRelay(t, tls)
        const left = departures(app)
        const pair = await openPair(t, app, tls)
        const [breaking, other] = [pair[earlyIndex], pair[1 - earlyIndex]!]
        const [c, d] = await openPair(t, app, tls, 'other')
        await testJoined(t, breaking.client, other.client)
        const bytes = randomBytes(2_000_000)
        c.client.socket.end(bytes)
        breaking.socket.resetAndDestroy()
        await other.client.readToEnd()
        other.client.socket.end()
        const error = await other.client.closed
        await until(() => Object.keys(left).length === 2)
        t.match(left, { [earlyIndex === 0 ? 'a' : 'b']: 'lost', [earlyIndex === 0 ? 'b' : 'a']: 'partner-lost' })
        // Node tells no difference between a TLS stream that has ended and one that was cut; the wire does.
        if (tls) t.notOk(recordTypes(other).includes(ALERT), 'no close_notify')
        else t.match(error, { code: 'ECONNRESET' })
        t.ok((await d.client.readToEnd()).equals(bytes), 'all bytes of the pair beside them')
        d.client.socket.end('back')
        t.equal((await c.client.readToEnd()).toString(), 'back')
      })

      await t.test(`a reset by the one ${side} after it has ended its half cuts the other direction short`, async (t) => {
        const app = await startRelay(t, tls)
        const left = departures(app)
        const pair = await openPair(t, app, tls)
        const [breaking, other] = [pair[earlyIndex], pair[1 - earlyIndex]!]
        breaking.client.socket.end('question')
        t.equal((await other.client.readToEnd()).toString(), 'question')
        breaking.socket.resetAndDestroy()
        // Who writes into a connection that the other side has left for good learns so.
        const timer = setInterval(() => { if (other.client.socket.writable) other.client.socket.write('answer') }, 5)
        t.teardown(() => clearInterval(timer))
        await other.client.closed
        t.equal(other.ends, 1)
        await until(() => Object.keys(left).length === 2)
        t.same(new Set(Object.values(left)), new Set(['lost', 'partner-lost']))
      })
    }
  })
}

t.test('a TLS stream that ends without close_notify counts as ended: Node does not tell them apart', async (t) => {
  const app = await startRelay(t, true)
  const [a, b] = await openPair(t, app, true)
  await a.client.send('cut')
  t.equal((await b.client.read(3)).toString(), 'cut')
  a.socket.end()
  t.equal((await b.client.readToEnd()).length, 0)
})

t.test('a reset does not outrun what was sent before it, as far as the relay has read it', async (t) => {
  const app = await startRelay(t, false)
  const [a, b] = await openPair(t, app, false)
  const bytes = randomBytes(100_000)
  await a.client.send(bytes)
  t.ok((await b.client.read(bytes.length)).equals(bytes))
  a.socket.resetAndDestroy()
  t.match(await b.client.closed, { code: 'ECONNRESET' })
  t.equal(b.ends, 0, 'no end of the stream was told')
})
