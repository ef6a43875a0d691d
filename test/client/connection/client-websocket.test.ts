import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { WebSocketServer, type WebSocket } from 'ws'
import { connect, RelayConnection, UdpSidecar, type ConnectionEnd, type ConnectOptions, type RawConnectOptions } from '../../../lib/client/index.ts'
import { fakeRelay, say } from '../../helpers/fake-relay.ts'
import { Mailbox } from '../../helpers/mailbox.ts'
import { serverCertificate, startApp } from '../../helpers/relay-app.ts'

// Real WebSockets, as our client speaks them.

const webSocket = { protocol: 'websocket' } as const
const ca = readFileSync(new URL('../../fixtures/ca.pem', import.meta.url))

const versions: Array<[string, string, object, Partial<ConnectOptions>]> = [
  ['HTTP/1.1', 'http', {}, {}],
  ['HTTP/1.1 over TLS', 'https', { https: serverCertificate() }, { tls: { ca } }],
  ['HTTP/2', 'http', { http2: true }, { httpVersion: 2 }],
  ['HTTP/2 over TLS', 'https', { http2: true, https: serverCertificate() }, { httpVersion: 2, tls: { ca } }]
]

/** A server of WebSockets that is no relay. */
async function webSocketServer (t: Test, subprotocol: string | null = 'spanza.v1'): Promise<{ url: string, sockets: Mailbox<WebSocket> }> {
  const http = createServer().listen(0, '127.0.0.1')
  await once(http, 'listening')
  const server = new WebSocketServer({ server: http, handleProtocols: () => subprotocol ?? false })
  const sockets = new Mailbox<WebSocket>()
  server.on('connection', (socket) => {
    socket.on('error', () => {})
    sockets.push(socket)
  })
  t.teardown(() => {
    for (const socket of sockets.all) socket.terminate()
    http.closeAllConnections()
    http.close()
  })
  return { url: `ws://127.0.0.1:${(http.address() as AddressInfo).port}/relay`, sockets }
}

async function opened (t: Test, url: string, options: Partial<ConnectOptions> = {}): Promise<RelayConnection> {
  const connection = await connect(url, { ...webSocket, ...options } as ConnectOptions)
  t.teardown(() => connection.close())
  return connection
}

function messagesOf (connection: RelayConnection): Mailbox<Buffer> {
  const messages = new Mailbox<Buffer>()
  connection.on('message', (datagram) => messages.push(datagram))
  return messages
}

for (const [name, scheme, server, options] of versions) {
  t.test(`${name}: datagrams of every size pass, to and from a peer under spanza`, async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'), { server, relay: { maxPacketSize: 65535 } })
    const url = `${scheme}://127.0.0.1:${(app.server.address() as AddressInfo).port}/relay`
    const connection = await opened(t, url, options)
    t.type(connection, RelayConnection)
    t.equal(connection.framing, 'websocket')
    t.equal(connection.maxPacketSize, 65535)
    const other = await connect(url, options as ConnectOptions)
    t.teardown(() => other.close())
    const [here, there] = [messagesOf(connection), messagesOf(other)]
    for (const size of [1, 2, 3, 4, 5, 125, 126, 1420, 65535]) {
      const datagram = Buffer.alloc(size, 'datagram')
      connection.send(datagram)
      t.ok((await there.next()).equals(datagram), `${size} bytes there`)
      other.send(datagram)
      t.ok((await here.next()).equals(datagram), `${size} bytes back`)
    }
    t.match(connection.stats, { datagramsIn: 9, datagramsOut: 9 })
  })

  t.test(`${name}: a raw one is a stream of bytes, whose end arrives`, async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'), { server })
    const url = `${scheme}://127.0.0.1:${(app.server.address() as AddressInfo).port}/relay`
    const tunnels: Duplex[] = []
    for (let i = 0; i < 2; i++) {
      const tunnel = await connect(url, { ...webSocket, ...options, framings: 'raw' } as RawConnectOptions)
      t.teardown(() => tunnel.destroy())
      tunnels.push(tunnel)
    }
    const [a, b] = tunnels as [Duplex, Duplex]
    const bytes = Buffer.alloc(1_000_000, 'bytes')
    a.end(bytes)
    const chunks: Buffer[] = []
    b.on('data', (chunk) => chunks.push(chunk))
    await once(b, 'end')
    t.ok(Buffer.concat(chunks).equals(bytes))
  })
}

t.test('it learns how large a datagram the relay takes', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  const connection = await opened(t, `ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/relay`)
  t.equal(connection.maxPacketSize, 2048)
  t.equal(connection.send(Buffer.alloc(2049)), false)
})

t.test('datagrams sent in one turn leave in one write, each masked by a key of its own', async (t) => {
  const { url, sockets } = await webSocketServer(t)
  let socket: Socket | undefined
  const { port } = new URL(url)
  const connection = await opened(t, url, { createConnection: () => { socket = connectTcp(Number(port), '127.0.0.1'); return socket } })
  const server = await sockets.next()
  const received = new Mailbox<Buffer>()
  server.on('message', (message) => received.push(message as Buffer))
  const writes: Buffer[] = []
  const write = socket!.write
  socket!.write = function (this: Socket, chunk: Buffer) {
    writes.push(Buffer.from(chunk))
    return write.call(this, chunk)
  } as Socket['write']
  for (let i = 0; i < 20; i++) connection.send(Buffer.alloc(100, i))
  for (let i = 0; i < 20; i++) t.same(await received.next(), Buffer.alloc(100, i))
  t.equal(writes.length, 1)
  const masks = new Set(Array.from({ length: 20 }, (_, i) => writes[0]!.readUInt32BE(i * 106 + 2)))
  t.equal(masks.size, 20)
})

t.test('it answers pings, asks with pings itself, and skips what is too large', async (t) => {
  const { url, sockets } = await webSocketServer(t)
  const connection = await opened(t, url, { keepaliveInterval: 20, maxPacketSize: 10 })
  const messages = messagesOf(connection)
  const server = await sockets.next()
  const pong = once(server, 'pong')
  const ping = once(server, 'ping')
  server.ping('are you there')
  t.equal(String((await pong)[0]), 'are you there')
  await ping
  server.send(Buffer.alloc(11))
  // In pieces, as a proxy may cut it.
  server.send(Buffer.from('hel'), { fin: false })
  server.send(Buffer.from('lo'), { fin: true })
  t.equal(String(await messages.next()), 'hello')
  t.equal(connection.stats.drops['received-too-large'], 1)
})

t.test('close codes are reasons', async (t) => {
  const cases: Array<[number | undefined, Partial<ConnectionEnd>]> = [
    [1001, { reason: 'shutdown', retry: true }],
    [1002, { reason: 'protocol-error', retry: false }],
    [1003, { reason: 'protocol-error', retry: false }],
    [1009, { reason: 'protocol-error', retry: false }],
    [1011, { reason: 'target-failed', retry: true }],
    [1013, { reason: 'limit', retry: true }],
    [4003, { reason: 'replaced', retry: false }],
    [4004, { reason: 'idle', retry: true }],
    [4005, { reason: 'write-deadline', retry: true }],
    [4006, { reason: 'disconnected', retry: false }],
    [1000, { reason: 'lost', retry: true }],
    [1012, { reason: 'unknown', retry: true }],
    [4999, { reason: 'unknown', retry: true }]
  ]
  for (const [code, end] of cases) {
    const { url, sockets } = await webSocketServer(t)
    const connection = await opened(t, url)
    const closed = once(connection, 'close') as Promise<[ConnectionEnd]>
    const server = await sockets.next()
    const answered = once(server, 'close')
    server.close(code, 'wo\u001brds')
    t.match(await closed, [{ ...end, code, text: 'words' }], `${code}`)
    t.equal((await answered)[0], code, 'it is answered with the same code')
  }
  const { url, sockets } = await webSocketServer(t)
  const connection = await opened(t, url)
  const closed = once(connection, 'close') as Promise<[ConnectionEnd]>
  ;(await sockets.next()).terminate()
  t.match(await closed, [{ reason: 'lost', retry: true }])
})

t.test('what is against the protocol ends the connection, and says so', async (t) => {
  const cases: Array<[string, (server: WebSocket) => void, RegExp]> = [
    ['a text', (server) => server.send('text'), /a text message/],
    ['65536 bytes', (server) => server.send(Buffer.alloc(65536)), /Max payload size exceeded/],
    ['a masked frame', (server) => (server as unknown as { _socket: Socket })._socket.write(Buffer.from([0x82, 0x81, 0, 0, 0, 0, 65])), /MASK must be clear/]
  ]
  for (const [name, send, text] of cases) {
    const { url, sockets } = await webSocketServer(t)
    const connection = await opened(t, url)
    const closed = once(connection, 'close') as Promise<[ConnectionEnd]>
    const server = await sockets.next()
    const told = once(server, 'close')
    send(server)
    t.match(await closed, [{ reason: 'protocol-error', text }], name)
    t.equal((await told)[0], 1002, name)
  }
})

t.test('close() says that all is well', async (t) => {
  const { url, sockets } = await webSocketServer(t)
  const connection = await opened(t, url)
  const server = await sockets.next()
  const closed = once(server, 'close')
  connection.send(Buffer.from('last words'))
  connection.close()
  t.equal(String((await once(server, 'message'))[0]), 'last words')
  t.equal((await closed)[0], 1000)
})

t.test('an answer that is no relay’s WebSocket is refused', async (t) => {
  const { url } = await webSocketServer(t, null)
  await t.rejects(connect(url, webSocket), { code: 'FST_RELAY_ANSWER', message: /a WebSocket without the subprotocol spanza\.v1/ })
  const switching = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n'
  const cases: Array<[string, RegExp]> = [
    ['', /a 101 without Sec-WebSocket-Accept/],
    ['Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n', /Sec-WebSocket-Accept is not the answer to this key/]
  ]
  for (const [line, message] of cases) {
    const relay = await fakeRelay(t, { answers: [say(`${switching}${line}\r\n`)] })
    await t.rejects(connect(relay.url, webSocket), { code: 'FST_RELAY_ANSWER', message })
  }
})

t.test('options that do not go with it', async (t) => {
  const cases: Array<[object, RegExp]> = [
    [{ framings: ['wg'] }, /option framings must be 'raw' or absent with protocol 'websocket'/],
    [{ framings: 'raw', earlyData: Buffer.alloc(1) }, /option earlyData must be absent with a WebSocket/],
    [{ headers: { 'sec-websocket-protocol': 'x' } }, /headers\['sec-websocket-protocol'\] must be absent/]
  ]
  for (const [options, message] of cases) {
    await t.rejects(connect('http://127.0.0.1:1/', { ...webSocket, ...options } as ConnectOptions), { code: 'FST_RELAY_CLIENT_OPTION', message })
  }
})

t.test('a sidecar speaks it, and hears why it is disconnected', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { identify: () => ({ id: 'me' }) }))
  const sidecar = new UdpSidecar({ url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/relay`, listen: '127.0.0.1:0', ...webSocket })
  t.teardown(() => sidecar.close())
  const first = once(sidecar, 'connect')
  await sidecar.start()
  t.match(await first, [{ framing: 'websocket' }])
  const stop = once(sidecar, 'stop')
  t.equal(app.relayHub.disconnect({ channel: app.relayHub.peers()[0]!.channel.name, id: 'me' }, 'go away'), 1)
  t.match(await stop, [{ reason: 'disconnected', text: 'go away' }])
})
