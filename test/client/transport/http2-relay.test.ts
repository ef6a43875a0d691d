import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { connect, UdpSidecar, type ConnectionEnd, type RawConnectOptions } from '../../../lib/client/index.ts'
import { serverCertificate, startApp, type AppOptions } from '../../helpers/relay-app.ts'
import { detached } from '../../helpers/relay.ts'
import { udpPeer } from '../../helpers/udp-peer.ts'

// The client's tunnels over HTTP/2, through the relay itself.

const http2 = { httpVersion: 2 } as const
const tls = { ca: readFileSync(new URL('../../fixtures/ca.pem', import.meta.url)) }

/** A relay over HTTP/2, and its sessions. */
async function startHttp2 (t: Test, setUp: (app: FastifyInstance) => unknown, { server, ...options }: AppOptions = {}) {
  const sessions: unknown[] = []
  const app = await startApp(t, (app) => {
    app.server.on('session', (session) => sessions.push(session))
    return setUp(app)
  }, { server: { http2: true, ...server } as AppOptions['server'] & object, ...options })
  const { port } = app.server.address() as AddressInfo
  return { app, sessions, url: `${server?.https === undefined ? 'http' : 'https'}://127.0.0.1:${port}/relay/x` }
}

async function opened (t: Test, url: string, options: Partial<RawConnectOptions> = {}): Promise<Duplex> {
  const tunnel = await connect(url, { ...http2, framings: 'raw', ...options })
  t.teardown(() => tunnel.destroy())
  return tunnel
}

async function readToEnd (stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

const named = (app: FastifyInstance) => app.relay('/relay/:name', {
  identify: ({ headers }) => ({ id: headers['x-id'] as string | undefined })
})

for (const secure of [false, true]) {
  const security = secure ? { tls } : {}

  t.test(`datagrams between two peers on one connection, and one over HTTP/1.1${secure ? ', over TLS' : ''}`, async (t) => {
    const { app, url, sessions } = await startHttp2(t, named, secure ? { server: { https: { allowHTTP1: true, ...serverCertificate() } } } : {})
    const options = { ...http2, ...security }
    const a = await connect(url, { ...options, headers: { 'X-Id': 'a' } })
    const b = await connect(url, { ...options, headers: { 'X-Id': 'b' }, framings: ['len16'] })
    t.teardown(() => { a.close(); b.close() })
    t.equal(sessions.length, 1)
    t.match(app.relayHub.peers(), [{ id: 'a', protocol: 'spanza', framing: 'wg' }, { id: 'b', framing: 'len16' }])
    const toB = once(b, 'message')
    a.send(Buffer.from('there'))
    t.equal(String(await toB), 'there')
    const toA = once(a, 'message')
    b.send(Buffer.from('back'))
    t.equal(String(await toA), 'back')
    if (!secure) return
    const left = detached(app, 'b')
    b.close()
    t.match(await left, { reason: 'ended' })
    const c = await connect(url, { tls })
    t.teardown(() => c.close())
    const toC = once(c, 'message')
    a.send(Buffer.from('to the older version'))
    t.equal(String(await toC), 'to the older version')
  })

  t.test(`bytes between two tunnels, with half-close${secure ? ', over TLS' : ''}`, async (t) => {
    const { url } = await startHttp2(t, named, secure ? { server: { https: serverCertificate() } } : {})
    const [a, b] = [await opened(t, url, security), await opened(t, url, security)]
    const bytes = Buffer.alloc(10_000_000, 'bytes of a tunnel ')
    a.end(bytes)
    t.ok((await readToEnd(b)).equals(bytes))
  })
}

t.test('what hooks refuse, and the relay, and the router', async (t) => {
  const { url } = await startHttp2(t, (app) => {
    app.relay('/relay/:name', { framings: ['raw'], onRequest: async ({ headers }) => { if (headers.authorization !== 'Bearer s3cret') throw Object.assign(new Error('who?'), { statusCode: 401 }) } })
  })
  await t.rejects(connect(url, http2), { code: 'FST_RELAY_REFUSED', statusCode: 401, message: 'The relay answered 401: who?' })
  await t.rejects(connect(url, { ...http2, token: 's3cret' }), { code: 'FST_RELAY_REFUSED', statusCode: 400, relayCode: 'FST_RELAY_FRAMING' })
  await t.rejects(connect(new URL('/elsewhere', url), http2), { code: 'FST_RELAY_REFUSED', statusCode: 404 })
  await opened(t, url, { token: 's3cret' })
})

t.test('an app that closes tells its tunnels', async (t) => {
  const { app, url } = await startHttp2(t, named)
  const connection = await connect(url, http2)
  const end = once(connection, 'close') as Promise<[ConnectionEnd]>
  await app.close()
  t.match(await end, [{ reason: 'shutdown', retry: true }])
})

t.test('two sidecars of one process carry datagrams on one connection', async (t) => {
  const { url, sessions } = await startHttp2(t, named)
  const peers = []
  for (let i = 0; i < 2; i++) {
    const sidecar = new UdpSidecar({ ...http2, url, listen: '127.0.0.1:0' })
    t.teardown(() => sidecar.close())
    const connected = once(sidecar, 'connect')
    peers.push((await udpPeer(t)).to(await sidecar.start()))
    await connected
  }
  const [a, b] = peers as [typeof peers[0], typeof peers[0]]
  // A sidecar without `forward` knows where to send to when something has come from there.
  await b.send('first')
  await a.send('there')
  t.equal(String(await b.received.next()), 'there')
  t.equal(sessions.length, 1)
})

t.test('a tunnel that is destroyed is an error to its other half, and not an end', async (t) => {
  const { url } = await startHttp2(t, named)
  const [a, b] = [await opened(t, url), await opened(t, url)]
  a.write('some')
  await once(b, 'data')
  const failing = once(b.resume(), 'error')
  a.destroy()
  t.match(await failing, [{ code: 'FST_RELAY_ABORTED' }])
})

t.test('a tunnel to a target: what it sends comes, and its reset is an error', async (t) => {
  const server = createServer((socket) => socket.once('data', () => socket.resetAndDestroy()).write('welcome'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const { url } = await startHttp2(t, (app) => app.relay('/relay/:name', { target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }))
  const tunnel = await opened(t, url)
  t.equal(String((await once(tunnel, 'data'))[0]), 'welcome')
  const failing = once(tunnel, 'error')
  tunnel.write('be gone')
  t.match(await failing, [{ code: 'FST_RELAY_ABORTED' }])
})
