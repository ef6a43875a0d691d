import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { connect, RelayConnection, UdpSidecar, type HttpUpgradeOptions } from '../../lib/client/index.ts'
import { fakeRelay, type Answer } from '../helpers/fake-relay.ts'
import { createGate } from '../helpers/gate.ts'
import { Mailbox } from '../helpers/mailbox.ts'
import { freePort } from '../helpers/ports.ts'
import { openBare, serverCertificate, startApp } from '../helpers/relay-app.ts'
import { openTunnel } from '../helpers/tunnel.ts'
import { udpPeer } from '../helpers/udp-peer.ts'

// `Upgrade: websocket` without a key, as our client speaks it.

const keyless = { protocol: 'websocket', keyless: true } as const
const serverAuthority = readFileSync(new URL('../fixtures/ca.pem', import.meta.url))
const SWITCHING = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'

function urlOf (app: FastifyInstance, path = '/relay', scheme = 'http'): string {
  return `${scheme}://127.0.0.1:${(app.server.address() as AddressInfo).port}${path}`
}

/** Opens a bare tunnel that ends with the test. */
async function opened (t: Test, url: string, options: Partial<HttpUpgradeOptions> = {}): Promise<Duplex> {
  const tunnel = await connect(url, { ...keyless, ...options })
  t.teardown(() => tunnel.destroy())
  return tunnel
}

/** The next `length` bytes of a stream; whatever comes with them stays in it. */
async function read (stream: Duplex, length: number): Promise<Buffer> {
  const chunks: Buffer[] = []
  let missing = length
  while (missing > 0) {
    const chunk: Buffer | null = stream.read(Math.min(missing, stream.readableLength || missing))
    if (chunk === null) {
      await once(stream, 'readable')
      continue
    }
    chunks.push(chunk)
    missing -= chunk.length
  }
  return Buffer.concat(chunks)
}

/** What comes until the other side ends; this side is left as it is. */
async function readToEnd (stream: Duplex): Promise<Buffer> {
  const chunks: Buffer[] = []
  stream.on('data', (chunk) => chunks.push(chunk))
  await once(stream, 'end')
  return Buffer.concat(chunks)
}

/** A server of bytes behind a relay. */
async function target (t: Test, serve: (socket: Socket) => void): Promise<string> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    t.teardown(() => socket.destroy())
    socket.on('error', () => {})
    serve(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** The URL of a relay that answers its first request so. */
async function answering (t: Test, answer: Answer): Promise<string> {
  return (await fakeRelay(t, { answers: [answer] })).url
}

/** A server that answers the head of a request with these bytes, whatever they are. */
async function bytesServer (t: Test, answer: string): Promise<{ url: string, request: Promise<string> }> {
  const requests = new Mailbox<string>()
  const url = await target(t, (socket) => {
    let head = ''
    socket.on('data', (chunk) => {
      if (head.includes('\r\n\r\n')) return
      head += chunk.toString('latin1')
      if (!head.includes('\r\n\r\n')) return
      requests.push(head)
      if (answer !== '') socket.write(answer)
    })
  })
  return { url: url.replace('tcp:', 'ws:'), request: requests.next() }
}

t.test('asks as HTTPUpgrade clients do, header names in the case given', async (t) => {
  const { url, request } = await bytesServer(t, SWITCHING)
  await opened(t, `${url}?ed=2048`, {
    host: 'cdn.example.com', token: 's3cret', headers: { 'user-agent': 'Mozilla/5.0', 'X-CUSTOM-header': ['one', 'two'], 'Sec-WebSocket-Version': '13' }
  })
  t.equal(await request, [
    'GET /?ed=2048 HTTP/1.1',
    'Host: cdn.example.com',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Authorization: Bearer s3cret',
    'user-agent: Mozilla/5.0',
    'X-CUSTOM-header: one',
    'X-CUSTOM-header: two',
    'Sec-WebSocket-Version: 13',
    '', ''
  ].join('\r\n'), 'a path without a leading slash has got one, and there is no key')
})

t.test('two bare tunnels through the relay are joined, in both directions', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  const a = await opened(t, urlOf(app, '/relay/x', 'ws'))
  t.match(app.relayHub.peers(), [{ protocol: 'websocket', framing: 'raw' }])
  const b = await opened(t, urlOf(app, '/relay/x'), { earlyData: Buffer.from('early') })
  t.equal(String(await read(a, 5)), 'early')
  a.write('there')
  t.equal(String(await read(b, 5)), 'there')
})

t.test('a raw tunnel under websocket and one under spanza are joined', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  const a = await opened(t, urlOf(app, '/relay/x'), { framings: 'raw' })
  const b = await connect(urlOf(app, '/relay/x'), { framings: 'raw' })
  t.teardown(() => b.destroy())
  a.write('there')
  t.equal(String(await read(b, 5)), 'there')
  b.write('back')
  t.equal(String(await read(a, 4)), 'back')
})

t.test('early data arrives whole and in order, and what is written later behind it', async (t) => {
  const url = await target(t, (socket) => { socket.pipe(socket) })
  for (const tls of [false, true]) {
    // The hook is slow, so that all of it is under way before the 101.
    const app = await startApp(t, (app) => app.relay('/relay', {
      target: url,
      onRequest: async () => await new Promise((resolve) => setTimeout(resolve, 50))
    }), tls ? { server: { https: serverCertificate() } } : {})
    for (const size of [0, 1, 64 * 1024, 1024 * 1024]) {
      const earlyData = Buffer.alloc(size, 'early data ')
      const tunnel = await opened(t, urlOf(app, '/relay', tls ? 'wss' : 'ws'), { earlyData, ...(tls ? { tls: { rejectUnauthorized: false } } : {}) })
      tunnel.write('written at once')
      const all = Buffer.concat([earlyData, Buffer.from('written at once')])
      t.ok((await read(tunnel, all.length)).equals(all), `${size} bytes${tls ? ' over TLS' : ''}`)
      tunnel.end('last')
      t.equal(String(await readToEnd(tunnel)), 'last', 'and the end')
    }
  }
})

t.test('early data and what follows is sent without waiting for the 101', async (t) => {
  let answer = (): void => {}
  const received: string[] = []
  let got = (): void => {}
  const all = new Promise<void>((resolve) => { got = resolve })
  const url = (await target(t, (socket) => {
    answer = () => socket.write(SWITCHING)
    socket.on('data', (chunk) => {
      received.push(String(chunk))
      if (received.join('').endsWith('\r\n\r\nearlylater')) got()
    })
  })).replace('tcp:', 'ws:')
  const tunnel = await opened(t, url, { earlyData: Buffer.from('early') })
  tunnel.write('later')
  await all
  t.equal(tunnel.readableFlowing, null)
  answer()
  tunnel.end()
  await once(tunnel, 'finish')
})

t.test('who writes before the 101 is held back by a connection that takes nothing', async (t) => {
  const writes: string[] = []
  let take = (): void => {}
  const transport = new Duplex({
    read () {},
    write (chunk, _encoding, callback) {
      if (String(chunk).startsWith('GET ')) return setImmediate(callback)
      writes.push(String(chunk))
      take = callback
    }
  })
  const tunnel = await opened(t, 'ws://a', { earlyData: Buffer.from('early'), createConnection: () => transport })
  tunnel.write('second')
  t.equal(tunnel.write(Buffer.alloc(tunnel.writableHighWaterMark, 'x')), false)
  await new Promise((resolve) => setImmediate(resolve))
  t.same(writes, ['early'], 'nothing more is handed on')
  t.equal(transport.writableLength, 'early'.length, 'nor does more wait there')
  take()
  await new Promise((resolve) => setImmediate(resolve))
  t.same(writes, ['early', 'second'])
  const drained = once(tunnel, 'drain')
  take()
  await new Promise((resolve) => setImmediate(resolve))
  take()
  await drained
})

t.test('an end before the 101 waits for it: the relay would take it for a client that has left', async (t) => {
  const url = await target(t, (socket) => {
    socket.on('end', () => socket.end('after your end')).resume()
  })
  const gate = createGate()
  const app = await startApp(t, (app) => app.relay('/relay', { target: url, onRequest: gate.hook }))
  const tunnel = await opened(t, urlOf(app), { earlyData: Buffer.alloc(0) })
  await gate.reached
  tunnel.end()
  // Another exchange with the same server: a FIN would have come before it.
  t.equal((await fetch(urlOf(app, '/none'))).status, 404)
  gate.open()
  t.equal(String(await readToEnd(tunnel)), 'after your end')
})

t.test('a connection that breaks behind the 101 tells its error', async (t) => {
  const transport = new Duplex({ read () {}, write (_chunk, _encoding, callback) { callback() } })
  const tunnel = await opened(t, 'ws://a', { earlyData: Buffer.alloc(0), createConnection: () => transport })
  transport.push(`${SWITCHING}glued`)
  t.equal(String(await read(tunnel, 5)), 'glued')
  setImmediate(() => transport.destroy(new Error('the cable broke')))
  t.match(await once(tunnel, 'error'), [{ message: 'the cable broke' }])
  t.equal(tunnel.destroyed, true)
})

t.test('what has come can be read when the connection has closed', async (t) => {
  const relay = await fakeRelay(t, { answers: [(_request, socket) => { socket.resume().end(`${SWITCHING}last words`) }] })
  const transport = connectTcp(relay.port, '127.0.0.1')
  const tunnel = await opened(t, relay.url, { earlyData: Buffer.alloc(0), createConnection: () => transport })
  const closed = once(transport, 'close')
  tunnel.end()
  await closed
  t.equal(String(await readToEnd(tunnel)), 'last words')
})

t.test('a refusal after early data is an error on the connection', async (t) => {
  const refuse = async (): Promise<never> => { throw Object.assign(new Error('not you'), { statusCode: 403 }) }
  for (const size of [0, 1, 64 * 1024, 1024 * 1024]) {
    const app = await startApp(t, (app) => app.relay('/relay', { onRequest: refuse }))
    const tunnel = await opened(t, urlOf(app), { earlyData: Buffer.alloc(size, 'x') })
    const [error] = await once(tunnel, 'error')
    t.match(error, { code: 'FST_RELAY_REFUSED', statusCode: 403, message: /not you/ }, `${size} bytes`)
    t.equal(tunnel.destroyed, true)
  }
})

t.test('with early data, whatever fails behind the request is an error on the connection', async (t) => {
  const cases: Array<[string, string | undefined, RegExp, string]> = [
    ['another protocol', 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: spanza\r\n\r\n', /"Upgrade: spanza"/, 'FST_RELAY_ANSWER'],
    ['no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n', /Parse Error/, 'FST_RELAY_CONNECT'],
    ['no answer in time', undefined, /no answer within 300 ms/, 'FST_RELAY_CONNECT']
  ]
  for (const [name, answer, message, code] of cases) {
    const { url } = await bytesServer(t, answer ?? '')
    const tunnel = await opened(t, url, { earlyData: Buffer.from('early'), handshakeTimeout: answer === undefined ? 300 : 10_000 })
    const [error] = await once(tunnel, 'error')
    t.match(error, { code, message }, name)
  }

  const hangUp = await opened(t, await answering(t, (_request, socket) => { socket.destroy() }), { earlyData: Buffer.alloc(0) })
  t.match(await once(hangUp, 'error'), [{ code: 'FST_RELAY_CONNECT' }])

  const broken = new Duplex({
    read () {},
    write (chunk, _encoding, callback) { setImmediate(callback, String(chunk) === 'early' ? new Error('the pipe broke') : null) }
  })
  const breaks = await opened(t, 'ws://a', { earlyData: Buffer.from('early'), createConnection: () => broken })
  t.match(await once(breaks, 'error'), [{ code: 'FST_RELAY_CONNECT', cause: { message: 'the pipe broke' } }])

  const controller = new AbortController()
  const { url, request } = await bytesServer(t, '')
  const aborted = await opened(t, url, { earlyData: Buffer.alloc(0), signal: controller.signal })
  await request
  const failed = once(aborted, 'error')
  controller.abort(new Error('not today'))
  t.match(await failed, [{ message: 'not today' }])
})

t.test('a failure before the request is a rejection, also with early data', async (t) => {
  const port = await freePort()
  await t.rejects(connect(`ws://127.0.0.1:${port}`, { ...keyless, earlyData: Buffer.from('early') }), { code: 'FST_RELAY_CONNECT', message: /ECONNREFUSED/ })
  const app = await startApp(t, (app) => app.relay('/relay'), { server: { https: serverCertificate() } })
  await t.rejects(connect(urlOf(app, '/relay', 'wss'), { ...keyless, earlyData: Buffer.from('early') }), { code: 'FST_RELAY_CONNECT', message: /certificate/ })
  t.equal(app.relayHub.stats().attached, 0)
})

t.test('nobody who does not listen for errors is harmed by a refusal', async (t) => {
  const app = await startApp(t, (app) => { app.get('/', async () => 'no relay') })
  const tunnel = await opened(t, urlOf(app, '/'), { earlyData: Buffer.from('early') })
  await new Promise((resolve) => tunnel.on('close', resolve))
  t.match(tunnel.errored, { code: 'FST_RELAY_REFUSED', statusCode: 200 })
})

t.test('one that is destroyed before the answer leaves', async (t) => {
  const relay = await fakeRelay(t, { answers: [() => {}] })
  const tunnel = await opened(t, relay.url, { earlyData: Buffer.alloc(0), handshakeTimeout: 600_000 })
  const { socket } = await relay.requests.next()
  const left = once(socket.resume(), 'end')
  tunnel.destroy()
  await left
  t.equal(tunnel.errored, null)
})

for (const earlyData of [undefined, Buffer.from('early')]) {
  const options = earlyData === undefined ? {} : { earlyData }
  const suffix = earlyData === undefined ? '' : ', with early data'

  t.test(`a server that speaks first is heard${suffix}`, async (t) => {
    const url = await target(t, (socket) => { socket.write('SSH-2.0-test\r\n') })
    const app = await startApp(t, (app) => app.relay('/relay', { target: url }))
    t.equal(String(await read(await opened(t, urlOf(app), options), 14)), 'SSH-2.0-test\r\n')
  })

  t.test(`each side may end while the other goes on${suffix}`, async (t) => {
    const url = await target(t, (socket) => {
      socket.on('end', () => socket.end('after your end')).resume()
    })
    const app = await startApp(t, (app) => app.relay('/relay', { target: url }))
    const first = await opened(t, urlOf(app), options)
    first.end('request')
    t.equal(String(await readToEnd(first)), 'after your end')

    const heard: Array<Promise<Buffer>> = []
    const other = await target(t, (socket) => {
      heard.push(readToEnd(socket))
      socket.end('greeting')
    })
    const app2 = await startApp(t, (app) => app.relay('/relay', { target: other }))
    const second = await opened(t, urlOf(app2), options)
    t.equal(String(await readToEnd(second)), 'greeting')
    second.end('after your end')
    t.equal(String(await heard[0]), `${earlyData ?? ''}after your end`)
  })

  t.test(`bytes in the same segment as the 101 are the first of the tunnel, and an end with them${suffix}`, async (t) => {
    const url = await answering(t, (_request, socket) => { socket.end(`${SWITCHING}glued`) })
    const tunnel = await opened(t, url, options)
    t.equal(String(await readToEnd(tunnel)), 'glued')
    tunnel.end('later')
    await once(tunnel, 'close')
  })

  t.test(`all that was sent is there to be read, however late${suffix}`, async (t) => {
    const bytes = Buffer.alloc(3 * 1024 * 1024, 'bytes')
    const url = await answering(t, (_request, socket) => { socket.end(Buffer.concat([Buffer.from(SWITCHING), bytes])) })
    const tunnel = await opened(t, url, options)
    tunnel.end()
    await once(tunnel, 'finish')
    await new Promise((resolve) => setTimeout(resolve, 50))
    t.ok(tunnel.readableLength < 1024 * 1024, 'what nobody reads is not taken in')
    t.ok((await readToEnd(tunnel)).equals(bytes))
  })

  t.test(`an answer cut anywhere is read alike${suffix}`, async (t) => {
    const answer = Buffer.from(`${SWITCHING}glued`)
    let cut = 0
    const relay = await fakeRelay(t)
    const next: Answer = (_request, socket) => {
      const rest = answer.subarray(cut)
      socket.setNoDelay(true)
      if (cut === 0) socket.end(rest)
      else socket.write(answer.subarray(0, cut), () => setTimeout(() => socket.end(rest), 2))
    }
    for (; cut < answer.length; cut++) {
      relay.answers.push(next)
      const tunnel = await opened(t, relay.url, options)
      t.equal(String(await readToEnd(tunnel)), 'glued', `cut behind byte ${cut}`)
    }
  })

  t.test(`an answer of single bytes${suffix}`, async (t) => {
    const url = await answering(t, (_request, socket) => {
      const bytes = [...Buffer.from(`${SWITCHING}glued`)]
      const next = () => {
        const byte = bytes.shift()
        if (byte === undefined) socket.end()
        else socket.write(Buffer.of(byte), () => setImmediate(next))
      }
      socket.setNoDelay(true)
      next()
    })
    t.equal(String(await readToEnd(await opened(t, url, options))), 'glued')
  })
}

t.test('what proxies make of the answer', async (t) => {
  const fine: Array<[string, string]> = [
    ['the usual', SWITCHING],
    ['a reason phrase in lower case', 'HTTP/1.1 101 switching protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['no reason phrase', 'HTTP/1.1 101 \r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['a list in Connection', 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade, keep-alive\r\nUpgrade: websocket\r\n\r\n'],
    ['the same the other way round', 'HTTP/1.1 101 Switching Protocols\r\nconnection: Keep-Alive, Upgrade\r\nupgrade: WebSocket\r\n\r\n'],
    ['Connection twice', 'HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n'],
    ['headers of its own', 'HTTP/1.1 101 Switching Protocols\r\nServer: cdn\r\nUpgrade: websocket\r\nConnection: upgrade\r\nDate: now\r\n\r\n'],
    ['an interim answer before it', `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${SWITCHING}`]
  ]
  for (const [name, answer] of fine) {
    const { url } = await bytesServer(t, `${answer}first bytes`)
    t.equal(String(await read(await opened(t, url), 11)), 'first bytes', name)
  }

  const wrong: Array<[string, RegExp]> = [
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n', /a 101 without "Upgrade: websocket"/],
    ['HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n', /a 101 without "Connection: Upgrade"/],
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n\r\n', /a 101 without "Connection: Upgrade"/],
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: spanza\r\n\r\n', /a 101 with "Upgrade: spanza"/],
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket, h2c\r\n\r\n', /a 101 with "Upgrade: websocket, h2c"/]
  ]
  for (const [answer, message] of wrong) {
    const { url } = await bytesServer(t, answer)
    await t.rejects(connect(url, keyless), { code: 'FST_RELAY_ANSWER', message })
  }
  const { url } = await bytesServer(t, 'HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n')
  await t.rejects(connect(url, keyless), { code: 'FST_RELAY_REFUSED', statusCode: 200 })
})

t.test('a host and a server name other than the URL’s', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { hosts: ['relay.example.com'] }), { server: { https: serverCertificate() } })
  const names: unknown[] = []
  app.server.on('secureConnection', (socket) => names.push(socket.servername))
  const tls = { ca: serverAuthority }
  const url = urlOf(app, '/relay', 'wss')
  await opened(t, url, { tls, host: 'relay.example.com' })
  await opened(t, url, { tls, host: 'relay.example.com:8443', servername: 'localhost' })
  t.same(names, ['relay.example.com', 'localhost'])
  await t.rejects(connect(url, { ...keyless, tls, servername: 'localhost' }), { code: 'FST_RELAY_REFUSED', statusCode: 421, relayCode: 'FST_RELAY_HOST_NOT_ALLOWED' })
})

t.test('a transport of the user’s carries early data as well', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  const first = await openBare(t, app, '/relay')
  const { port } = app.server.address() as AddressInfo
  await opened(t, 'wss://relay.example.com/relay', { createConnection: () => connectTcp(port, '127.0.0.1'), earlyData: Buffer.from('early') })
  t.equal(String(await first.read(5)), 'early')
})

t.test('datagrams travel under websocket, too', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  for (const framing of ['wg', 'len16'] as const) {
    const connection = await connect(urlOf(app, `/relay/${framing}`), { ...keyless, framings: [framing] })
    t.teardown(() => connection.close())
    t.type(connection, RelayConnection)
    t.equal(connection.framing, framing)
    const other = await openTunnel(t, app, { path: `/relay/${framing}` })
    connection.send(Buffer.from('there'))
    t.equal(String(await other.datagrams.next()), 'there')
    other.send(Buffer.from('back'))
    t.equal(String((await once(connection, 'message'))[0]), 'back')
  }

  const { url } = await bytesServer(t, SWITCHING)
  await t.rejects(connect(url, { ...keyless, framings: ['wg'] }), { code: 'FST_RELAY_ANSWER', message: /a proxy removed Spanza-Framing/ })
})

t.test('a sidecar offers its framings under websocket', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  const sidecar = new UdpSidecar({ url: urlOf(app, '/relay/x', 'ws'), listen: '127.0.0.1:0', ...keyless })
  t.teardown(() => sidecar.close())
  const connecting = once(sidecar, 'connect')
  const address = await sidecar.start()
  t.match(await connecting, [{ framing: 'wg' }])
  t.match(app.relayHub.peers(), [{ protocol: 'websocket', framing: 'wg' }])
  const other = await openTunnel(t, app, { path: '/relay/x' })
  await (await udpPeer(t)).to(address).send('datagram')
  t.equal(String(await other.datagrams.next()), 'datagram')
})

t.test('an option that cannot be used is named with its value', async (t) => {
  const url = 'ws://127.0.0.1:1/'
  const cases: Array<[string, string, unknown, RegExp]> = [
    ['another protocol', url, { protocol: 'h2c' }, /option protocol must be 'spanza' or 'websocket', not 'h2c'/],
    ['keyless that is no boolean', url, { protocol: 'websocket', keyless: 1 }, /option keyless must be true or false, not 1/],
    ['keyless without a WebSocket', 'http://a', { keyless: true }, /option keyless must be absent without protocol 'websocket'/],
    ['ws: under spanza', url, {}, /option url must be an http: or https: URL, not 'ws:/],
    ['another scheme', 'ftp://a', keyless, /option url must be an http:, https:, ws: or wss: URL, not 'ftp:/],
    ['a key', url, { ...keyless, headers: { 'Sec-WebSocket-Key': 'a' } }, /headers\['Sec-WebSocket-Key'\] must be absent/],
    ['TLS options without TLS', url, { ...keyless, tls: {} }, /option tls must be absent/],
    ['early data that is a string', url, { ...keyless, earlyData: 'early' }, /option earlyData must be a Buffer, not 'string'/],
    ['early data with a framing', url, { ...keyless, framings: ['wg'], earlyData: Buffer.alloc(1) }, /option earlyData must be absent with framings/],
    ['early data with the default framings', 'http://a', { earlyData: Buffer.alloc(1) }, /option earlyData must be absent with framings/],
    ['early data behind a WebSocket', url, { protocol: 'websocket', framings: 'raw', earlyData: Buffer.alloc(1) }, /option earlyData must be absent/]
  ]
  for (const [name, url, options, message] of cases) {
    await t.rejects(connect(url, options as HttpUpgradeOptions), { code: 'FST_RELAY_CLIENT_OPTION', message }, name)
  }
  t.throws(() => new UdpSidecar({ url: 'ws://a', protocol: 'websocket', framings: ['wg'] }), { code: 'FST_RELAY_CLIENT_OPTION', message: /framings/ })
})
