import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { connect, UdpSidecar } from '../../../lib/client/index.ts'
import { proxyProtocol } from '../../../lib/entrance/proxy-protocol/proxy-protocol.ts'
import { decodeProxyHeader } from '../../../lib/util/proxy-header.ts'
import { Mailbox } from '../../helpers/mailbox.ts'
import { freePort } from '../../helpers/ports.ts'
import { serverCertificate, startApp } from '../../helpers/relay-app.ts'

// The client's option `proxyProtocol`: a PROXY header before anything else.

const keyless = { protocol: 'websocket', keyless: true } as const
const tls = { ca: readFileSync(new URL('../../fixtures/ca.pem', import.meta.url)) }
const versions = [1, 2] as const
const hasIPv6 = Object.values(networkInterfaces()).flat().some((each) => each?.address === '::1')

/** An app that closes each connection without a PROXY header. */
async function behindProxy (t: Test, secure: boolean): Promise<{ app: FastifyInstance, url: string }> {
  const app = await startApp(t, (app) => app.relay('/relay/:name'), {
    server: { serverFactory: proxyProtocol({ from: ['127.0.0.1'] }), ...(secure ? { https: serverCertificate() } : {}) }
  })
  return { app, url: `${secure ? 'https' : 'http'}://127.0.0.1:${(app.server.address() as AddressInfo).port}/relay/x` }
}

interface Seen {
  socket: Socket
  bytes: Buffer
}

/** A server that notes the first bytes of each connection, and says nothing. */
async function listener (t: Test, host: string): Promise<{ port: number, seen: Mailbox<Seen> }> {
  const seen = new Mailbox<Seen>()
  const server = createServer((socket) => {
    t.teardown(() => socket.destroy())
    socket.on('error', () => {})
    let bytes = Buffer.alloc(0)
    socket.on('data', (chunk) => {
      bytes = Buffer.concat([bytes, chunk])
      // The header, and something of what follows.
      const header = decodeProxyHeader(bytes)
      if (header.kind !== 'header' || bytes.length > header.length) seen.push({ socket, bytes })
    })
  })
  server.listen(0, host)
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { port: (server.address() as AddressInfo).port, seen }
}

for (const version of versions) {
  for (const secure of [false, true]) {
    const security = secure ? { tls } : {}

    t.test(`version ${version} opens the way through a server that demands it${secure ? ', before TLS' : ''}`, async (t) => {
      const { app, url } = await behindProxy(t, secure)
      const options = { proxyProtocol: version, ...security }
      const datagrams = await connect(url, options)
      t.teardown(() => datagrams.close())
      t.equal(datagrams.closed, false)
      const raw = await connect(url, { ...options, ...keyless, earlyData: Buffer.alloc(100_000, 'early') })
      t.teardown(() => raw.destroy())
      const other = await connect(url, { ...options, framings: 'raw' })
      t.teardown(() => other.destroy())
      let length = 0
      await new Promise<void>((resolve) => other.on('data', (chunk: Buffer) => { if ((length += chunk.length) === 100_000) resolve() }))
      t.same(app.relayHub.peers().map(({ address }) => address), ['127.0.0.1', '127.0.0.1', '127.0.0.1'])
      await t.rejects(connect(url, security), { code: 'FST_RELAY_CONNECT' }, 'without it there is no way')
    })

    t.test(`version ${version} tells both ends of the own connection${secure ? ', before TLS' : ''}`, async (t) => {
      const { port, seen } = await listener(t, '127.0.0.1')
      const controller = new AbortController()
      const attempt = connect(`${secure ? 'https' : 'http'}://127.0.0.1:${port}/path`, { proxyProtocol: version, signal: controller.signal, ...security })
      attempt.catch(() => {})
      const { socket, bytes } = await seen.next()
      const header = decodeProxyHeader(bytes) as ReturnType<typeof decodeProxyHeader> & { kind: 'header' }
      t.same(header.connection, {
        source: { address: '127.0.0.1', port: socket.remotePort },
        destination: { address: '127.0.0.1', port }
      })
      t.equal(bytes[0], version === 1 ? 'P'.charCodeAt(0) : 0x0d)
      const behind = bytes.subarray(header.length)
      if (secure) t.equal(behind[0], 22, 'TLS begins behind it')
      else t.match(String(behind), /^GET \/path HTTP/, 'the request is behind it')
      controller.abort(new Error('enough'))
      await t.rejects(attempt, { message: 'enough' })
    })
  }

  t.test(`version ${version} over IPv6`, { skip: hasIPv6 ? false : 'this machine has no IPv6' }, async (t) => {
    const { port, seen } = await listener(t, '::1')
    const attempt = connect(`http://[::1]:${port}/`, { proxyProtocol: version })
    const { socket, bytes } = await seen.next()
    const end = { address: '::1', port: socket.remotePort }
    t.match(decodeProxyHeader(bytes), { kind: 'header', connection: { source: end, destination: { address: '::1', port } } })
    socket.destroy()
    await t.rejects(attempt, { code: 'FST_RELAY_CONNECT' })
  })
}

t.test('a name is checked as ever behind the header', async (t) => {
  const { url } = await behindProxy(t, true)
  const options = { proxyProtocol: 2, tls } as const
  await t.rejects(connect(url, { ...options, servername: 'other.example.com' }), { code: 'FST_RELAY_CONNECT', cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' } })
  await t.rejects(connect(url, { proxyProtocol: 2 }), { code: 'FST_RELAY_CONNECT', cause: { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' } })
  const connection = await connect(url, { ...options, servername: 'localhost' })
  connection.close()
})

t.test('an address is checked as ever behind the header', { skip: hasIPv6 ? false : 'this machine has no IPv6' }, async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), {
    server: { serverFactory: proxyProtocol({ from: ['::1'] }), https: serverCertificate() }, listen: { host: '::1' }
  })
  const { port } = app.server.address() as AddressInfo
  await t.rejects(connect(`https://[::1]:${port}/relay`, { proxyProtocol: 2, tls }), { code: 'FST_RELAY_CONNECT', cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' } })
})

t.test('a connection that fails is told with its cause', async (t) => {
  const port = await freePort()
  for (const scheme of ['http', 'https']) {
    await t.rejects(connect(`${scheme}://127.0.0.1:${port}`, { proxyProtocol: 1 }), { code: 'FST_RELAY_CONNECT', cause: { code: 'ECONNREFUSED' } }, scheme)
  }
})

t.test('a server that never answers is given up in time, and so is its connection', async (t) => {
  for (const scheme of ['http', 'https']) {
    const { port, seen } = await listener(t, '127.0.0.1')
    const attempt = connect(`${scheme}://127.0.0.1:${port}`, { proxyProtocol: 2, handshakeTimeout: 300 })
    attempt.catch(() => {})
    const { socket } = await seen.next()
    const closed = once(socket, 'close')
    await t.rejects(attempt, { code: 'FST_RELAY_CONNECT', message: /no answer within 300 ms/ })
    await closed
  }
})

t.test('a sidecar sends it with each attempt', async (t) => {
  const { app, url } = await behindProxy(t, false)
  const sidecar = new UdpSidecar({ url, listen: '127.0.0.1:0', proxyProtocol: 2 })
  t.teardown(() => sidecar.close())
  const connecting = once(sidecar, 'connect')
  await sidecar.start()
  await connecting
  t.equal(app.relayHub.peers().length, 1)
})

t.test('an option that cannot be used is named with its value', async (t) => {
  await t.rejects(connect('http://a', { proxyProtocol: 3 as 2 }), { code: 'FST_RELAY_CLIENT_OPTION', message: /option proxyProtocol must be 1 or 2, not 3/ })
  await t.rejects(connect('http://a', { proxyProtocol: 1, createConnection: () => connectTcp(1) }), {
    code: 'FST_RELAY_CLIENT_OPTION', message: /option proxyProtocol must be absent with createConnection/
  })
})
