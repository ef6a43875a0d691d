import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WriteDeadline } from '../../lib/tunnel/write-deadline.ts'
import { FakeTunnel } from '../helpers/fake-tunnel.ts'
import { openSession, openTunnelOn } from '../helpers/http2-client.ts'
import { upgradeText } from '../helpers/raw-client.ts'
import { serverCertificate, startApp, type AppOptions } from '../helpers/relay-app.ts'
import { detached, startRelay } from '../helpers/relay.ts'
import { openTunnel, type Tunnel } from '../helpers/tunnel.ts'

const options = { writeTimeout: 100 }

async function open (t: Test, app: FastifyInstance, id: string, reads: boolean): Promise<Tunnel> {
  return await openTunnel(t, app, { framing: 'raw', id, reads })
}

/** Sends as long as the relay takes anything. */
function flood (tunnel: Tunnel): void {
  const block = Buffer.alloc(256 * 1024)
  const more = (): void => { while (!tunnel.socket.destroyed && tunnel.write(block)); }
  tunnel.socket.on('drain', more)
  more()
}

t.test('a stream that takes nothing for too long is over its deadline, one that takes something is not', async (t) => {
  const tunnel = new FakeTunnel({ isOpen: false, highWaterMark: 1000 })
  const deadline = new WriteDeadline(tunnel.tunnel)
  t.notOk(deadline.isOver(0, 0, 100))
  for (let i = 0; i < 3; i++) tunnel.write('x')
  t.notOk(deadline.isOver(3, 1000, 100), 'it begins to wait now')
  t.notOk(deadline.isOver(3, 1100, 100))
  await tunnel.takeOne()
  t.notOk(deadline.isOver(3, 1200, 100), 'it has taken one')
  t.notOk(deadline.isOver(3, 1300, 100))
  t.ok(deadline.isOver(3, 1301, 100))
  await tunnel.open()
  t.notOk(deadline.isOver(3, 2000, 100), 'nothing waits')
})

t.test('a raw tunnel that takes nothing any more breaks, and its pair with it', async (t) => {
  const app = await startRelay(t, options)
  const [a] = [await open(t, app, 'a', true), await open(t, app, 'b', false)]
  const leaving = Promise.all([detached(app, 'a'), detached(app, 'b')])
  flood(a)
  const [ofA, ofB] = await leaving
  t.match(ofB, { reason: 'write-deadline', text: 'nothing could be written for 100 ms' })
  t.match(ofA, { reason: 'partner-lost' })
  await a.closed
  t.match(a.error, { code: /ECONNRESET|EPIPE/ }, 'a reset, not an end')
  t.match(app.relayHub.stats().detached, { 'write-deadline': 1, 'partner-lost': 1 })
})

t.test('a TCP target that takes nothing any more has failed', async (t) => {
  const sockets: Socket[] = []
  const server = createServer({ pauseOnConnect: true }, (socket) => sockets.push(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const app = await startApp(t, (app) => {
    app.relay('/relay', { target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`, identify: () => ({ id: 'a' }) })
  }, { relay: options })
  const a = await openTunnel(t, app, { path: '/relay', framing: 'raw' })
  const leaving = detached(app, 'a')
  flood(a)
  t.match(await leaving, { reason: 'target-failed', text: 'nothing could be written to the target for 100 ms' })
})

interface End { stream: Duplex, closed: Promise<unknown> }

type Open = (t: Test, app: FastifyInstance, id: string) => Promise<End>

const overSocket = (headers: Record<string, string> = {}): Open => async (t, app, id) => {
  const address = app.server.address() as AddressInfo | string
  const options = typeof address === 'string' ? { path: address } : { port: address.port, host: '127.0.0.1' }
  const stream = 'setSecureContext' in app.server
    ? connectTls({ ...options, rejectUnauthorized: false })
    : connect(options)
  t.teardown(() => stream.destroy())
  stream.on('error', () => {})
  stream.write(upgradeText('/relay/home', { headers: { 'X-Id': id, ...headers } }))
  await once(stream, 'readable')
  const head = String(stream.read())
  if (!head.startsWith('HTTP/1.1 101')) throw new Error(head)
  return { stream, closed: new Promise((resolve) => stream.on('close', resolve)) }
}

const overHttp2 = (protocol: string, headers: Record<string, string> = {}): Open => async (t, app, id) => {
  const session = await openSession(t, app, { tls: 'setSecureContext' in app.server })
  const { stream, closed } = await openTunnelOn(session, '/relay/home', { protocol, headers: { 'x-id': id, ...headers } })
  stream.removeAllListeners('data')
  stream.pause()
  return { stream, closed }
}

const webSocket = { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Protocol': 'spanza.raw.v1' }
const block = Buffer.alloc(60_000)
/** As a masked binary message. */
const message = Buffer.concat([Buffer.from([0x82, 0xfe, block.length >> 8, block.length & 255, 0, 0, 0, 0]), block])

interface Kind { open: Open, bytes: Buffer, server?: NonNullable<AppOptions['server']>, path?: string }

const kinds: Record<string, Kind> = {
  TCP: { open: overSocket(), bytes: block },
  TLS: { open: overSocket(), bytes: block, server: { https: serverCertificate() } },
  'a unix socket': { open: overSocket(), bytes: block, path: join(tmpdir(), `write-deadline-${process.pid}.sock`) },
  'HTTP/2': { open: overHttp2('spanza'), bytes: block, server: { http2: true } as object },
  'HTTP/2 over TLS': { open: overHttp2('spanza'), bytes: block, server: { http2: true, https: serverCertificate() } as object },
  'a WebSocket': { open: overSocket(webSocket), bytes: message },
  'a WebSocket over TLS': { open: overSocket(webSocket), bytes: message, server: { https: serverCertificate() } },
  'a WebSocket over HTTP/2': {
    open: overHttp2('websocket', { 'sec-websocket-protocol': 'spanza.raw.v1' }), bytes: message, server: { http2: true } as object
  }
}

/** Sends as long as the relay takes anything. */
function keepSending ({ stream }: End, bytes: Buffer): void {
  const more = (): void => { while (!stream.destroyed && stream.write(bytes)); }
  stream.on('drain', more)
  more()
}

async function start (t: Test, { server = {}, path }: Kind, writeTimeout: number): Promise<FastifyInstance> {
  return await startApp(t, (app) => {
    app.relay('/relay/:channel', { identify: ({ headers }) => ({ id: String(headers['x-id']) }) })
  }, { server, relay: { writeTimeout }, listen: path === undefined ? {} : { path } })
}

for (const [name, kind] of Object.entries(kinds)) {
  for (const stuck of ['first', 'second'] as const) {
    t.test(`the ${stuck} tunnel of a pair over ${name} takes nothing any more`, async (t) => {
      const app = await start(t, kind, 100)
      const ends = { first: await kind.open(t, app, 'first'), second: await kind.open(t, app, 'second') }
      const other = stuck === 'first' ? 'second' : 'first'
      const leaving = Promise.all([detached(app, stuck), detached(app, other)])
      keepSending(ends[other], kind.bytes)
      const [ofStuck, ofOther] = await leaving
      t.match(ofStuck, { reason: 'write-deadline', text: 'nothing could be written for 100 ms' })
      t.match(ofOther, { reason: 'partner-lost' })
      ends[other].stream.resume()
      // One that answers no Close frame has a while until it is closed.
      if (kind.bytes !== message) await ends[other].closed
    })
  }
}

for (const name of ['TCP', 'HTTP/2', 'a WebSocket over HTTP/2']) {
  t.test(`a reader over ${name} that takes 64 KiB now and then is not cut off, not even within one message of 1 MiB`, async (t) => {
    const kind = kinds[name]!
    const app = await start(t, kind, 1000)
    const [sender, reader] = [await kind.open(t, app, 'sender'), await kind.open(t, app, 'reader')]
    const left = { hasLeft: false }
    app.relayHub.on('detach', () => { left.hasLeft = true })
    const payload = Buffer.alloc(1024 * 1024)
    sender.stream.write(kind.bytes === message ? Buffer.concat([Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]), payload]) : payload)
    reader.stream.on('readable', () => {})
    let received = 0
    while (received < payload.length && !left.hasLeft) {
      const { readableLength } = reader.stream
      if (readableLength > 0) received += (reader.stream.read(Math.min(readableLength, 64 * 1024)) as Buffer).length
      await new Promise((resolve) => setTimeout(resolve, 150))
    }
    t.notOk(left.hasLeft)
    t.ok(received >= payload.length)
  })
}
