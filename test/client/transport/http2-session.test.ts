import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { connect as connectTcp, createServer as createTcpServer, type AddressInfo, type Server } from 'node:net'
import { Duplex } from 'node:stream'
import { createServer as createTlsServer } from 'node:tls'
import t, { type Test } from 'tap'
import { connect, RelayConnection, UdpSidecar, type ConnectionEnd, type ConnectOptions, type RawConnectOptions } from '../../../lib/client/index.ts'
import { len16 } from '../../../lib/framing/len16.ts'
import { wg } from '../../../lib/framing/wg.ts'
import { assortedDatagrams } from '../../helpers/datagrams.ts'
import {
  DATA, encodeFrame, END_STREAM, fakeHttp2Relay, framesServer, GOAWAY, HEADERS, refuseHttp2, RST_STREAM, type FramePeer
} from '../../helpers/fake-http2-relay.ts'
import { Mailbox } from '../../helpers/mailbox.ts'
import { udpPeer } from '../../helpers/udp-peer.ts'

// The client's option `httpVersion: 2`: tunnels by extended CONNECT.

const fixture = (name: string) => readFileSync(new URL(`../../fixtures/${name}`, import.meta.url))
const server = { cert: fixture('server.pem'), key: fixture('server-key.pem') }
const ca = fixture('ca.pem')
const tls = { ca }

/** Opens a tunnel of datagrams that ends with the test. */
async function connected (t: Test, url: string, options: ConnectOptions = {}): Promise<RelayConnection> {
  const connection = await connect(url, { httpVersion: 2, ...options })
  t.teardown(() => connection.close())
  return connection
}

/** Opens a tunnel of bytes that ends with the test. */
async function opened (t: Test, url: string, options: Partial<RawConnectOptions> = {}): Promise<Duplex> {
  const tunnel = await connect(url, { httpVersion: 2, framings: 'raw', ...options })
  t.teardown(() => tunnel.destroy())
  return tunnel
}

/** A tunnel of bytes, and the server of frames that has it as stream 1. */
async function framesPair (t: Test): Promise<{ tunnel: Duplex, peer: FramePeer }> {
  const { url, peers } = await framesServer(t)
  const opening = opened(t, url)
  const peer = await peers.next()
  await peer.frames.next()
  peer.accept(1)
  return { tunnel: await opening, peer }
}

/** What comes until the other side ends. */
async function readToEnd (stream: Duplex): Promise<string> {
  const chunks: Buffer[] = []
  stream.on('data', (chunk) => chunks.push(chunk))
  await once(stream, 'end')
  return String(Buffer.concat(chunks))
}

/** What happens to a tunnel until it is closed: `end`, and the error's message. */
async function fateOf (tunnel: Duplex): Promise<string[]> {
  const fate: string[] = []
  tunnel.on('end', () => fate.push('end')).on('error', ({ message }) => fate.push(message)).resume()
  await new Promise((resolve) => tunnel.on('close', resolve))
  return fate
}

async function listening (t: Test, server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return (server.address() as AddressInfo).port
}

t.test('asks by an extended CONNECT, header names in lower case and lists in one line', async (t) => {
  const relay = await fakeHttp2Relay(t)
  const connection = await connected(t, relay.url, {
    framings: ['len16', 'wg'],
    host: 'relay.example.com:8443',
    token: 's3cret',
    headers: { 'X-Custom': 'one', 'user-agent': ['spanza', 'twice'], Cookie: ['a=1', 'b=2'] }
  })
  const { headers, session } = await relay.requests.next()
  t.same(Object.fromEntries(Object.entries(headers)), {
    ':method': 'CONNECT',
    ':protocol': 'spanza',
    ':scheme': 'http',
    ':authority': 'relay.example.com:8443',
    ':path': '/relay/home?x=1',
    'spanza-framing': 'len16, wg',
    authorization: 'Bearer s3cret',
    'x-custom': 'one',
    'user-agent': 'spanza, twice',
    cookie: 'a=1; b=2'
  })
  t.equal(session.remoteSettings.enablePush, false)
  t.type(connection, RelayConnection)
  t.equal(connection.framing, 'len16')
  t.equal(connection.maxPacketSize, 2048)
})

for (const framing of [wg, len16]) {
  for (const secure of [false, true]) {
    t.test(`${framing.name}${secure ? ' over TLS' : ''}: datagrams travel both ways unchanged`, async (t) => {
      const relay = await fakeHttp2Relay(t, secure ? { tls: server } : {})
      const connection = await connected(t, relay.url, { framings: [framing.name], ...(secure ? { tls } : {}) })
      const messages = new Mailbox<Buffer>()
      connection.on('message', (datagram) => messages.push(datagram))
      const tunnel = await relay.tunnels.next()
      const datagrams = assortedDatagrams().filter(({ length }) => length <= 2048)
      for (const datagram of datagrams) t.equal(connection.send(datagram), true)
      t.same(await tunnel.datagrams.take(datagrams.length), datagrams)
      tunnel.send(...datagrams)
      t.same(await messages.take(datagrams.length), datagrams)
      t.equal((await relay.requests.next()).headers[':scheme'], secure ? 'https' : 'http')
    })
  }
}

t.test('tunnels that share a connection do not touch each other’s memory', async (t) => {
  // Frames of both in one piece: Node gives out parts of it, in which the lengths of messages are then cleared.
  const { url, peers } = await framesServer(t)
  const opening = [connect(url, { httpVersion: 2, framings: 'raw' }), connect(url, { httpVersion: 2, framings: 'raw' })]
  const peer = await peers.next()
  await peer.frames.take(2)
  for (const stream of [1, 3]) peer.accept(stream)
  const tunnels = await Promise.all(opening)
  const read = tunnels.map(async (tunnel) => {
    t.teardown(() => tunnel.destroy())
    const chunks: Buffer[] = []
    tunnel.on('data', (chunk: Buffer) => {
      chunks.push(Buffer.from(chunk))
      chunk.fill(0xff)
    })
    await once(tunnel, 'end')
    return Buffer.concat(chunks)
  })
  const sent = [1, 3].map((stream) => Array.from({ length: 100 }, (_, i) => Buffer.alloc(i + 1, i * stream)))
  const pieces = sent[0]!.flatMap((bytes, i) => [encodeFrame(DATA, 0, 1, bytes), encodeFrame(DATA, 0, 3, sent[1]![i])])
  peer.socket.write(Buffer.concat([...pieces, encodeFrame(DATA, END_STREAM, 1), encodeFrame(DATA, END_STREAM, 3)]))
  t.same(await Promise.all(read), sent.map((each) => Buffer.concat(each)))
})

t.test('a tunnel of bytes', async (t) => {
  t.test('carries them in both directions', async (t) => {
    const relay = await fakeHttp2Relay(t)
    const tunnel = await opened(t, relay.url)
    t.notOk('spanza-framing' in (await relay.requests.next()).headers)
    const bytes = Buffer.alloc(20_000_000, 'bytes of a tunnel ')
    tunnel.end(bytes)
    const chunks: Buffer[] = []
    for await (const chunk of tunnel) chunks.push(chunk)
    t.ok(Buffer.concat(chunks).equals(bytes))
  })

  t.test('has what came together with the answer', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [({ stream }) => { stream.respond({ ':status': 200 }); stream.end('at once') }] })
    t.equal(await readToEnd(await opened(t, relay.url)), 'at once')
  })

  t.test('is half-open: END_STREAM ends one direction only', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    peer.send(DATA, END_STREAM, 1, 'the relay is done')
    t.equal(await readToEnd(tunnel), 'the relay is done')
    const closed = once(tunnel, 'close')
    tunnel.write('after the end')
    t.match(await peer.frames.next(), { type: DATA, flags: 0, payload: Buffer.from('after the end') })
    tunnel.end()
    t.match(await peer.frames.next(), { type: DATA, flags: END_STREAM, payload: Buffer.alloc(0) })
    await closed
    t.match(await peer.frames.next(), { type: GOAWAY }, 'and no reset')
  })

  t.test('can be ended first', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    tunnel.end('done')
    // Node may send the end with the last bytes or behind them.
    let frame
    let text = ''
    do text += (frame = await peer.frames.next()).payload
    while (frame.flags !== END_STREAM)
    t.equal(text, 'done')
    peer.send(DATA, END_STREAM, 1, 'still here')
    t.equal(await readToEnd(tunnel), 'still here')
  })

  t.test('is reset with CANCEL when it is destroyed, and not ended before', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    tunnel.write('some')
    await peer.frames.next()
    tunnel.destroy()
    t.match(await peer.frames.next(), { type: RST_STREAM, stream: 1, payload: Buffer.from([0, 0, 0, 8]) })
  })

  t.test('is reset also where the bytes are read', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    tunnel.on('data', () => tunnel.destroy())
    peer.send(DATA, 0, 1, 'some')
    t.match(await peer.frames.next(), { type: RST_STREAM, stream: 1, payload: Buffer.from([0, 0, 0, 8]) })
  })
})

t.test('a reset by the relay is an error with the code’s name', async (t) => {
  const codes: Array<[number, string]> = [
    [0, 'NO_ERROR'], [1, 'PROTOCOL_ERROR'], [2, 'INTERNAL_ERROR'], [3, 'FLOW_CONTROL_ERROR'], [7, 'REFUSED_STREAM'], [8, 'CANCEL'], [10, 'CONNECT_ERROR'],
    [11, 'ENHANCE_YOUR_CALM'], [99, 'code 99']
  ]
  for (const [code, name] of codes) {
    const message = `The tunnel was aborted: RST_STREAM with ${name}`

    t.test(`${name}, while both directions are open`, async (t) => {
      const { tunnel, peer } = await framesPair(t)
      const fate = fateOf(tunnel)
      peer.send(DATA, 0, 1, 'cut sho')
      peer.reset(1, code)
      t.same(await fate, [message])
      t.match(tunnel.errored, { code: 'FST_RELAY_ABORTED' })
    })

    t.test(`${name}, after this side has ended`, async (t) => {
      const { tunnel, peer } = await framesPair(t)
      const fate = fateOf(tunnel)
      tunnel.end()
      await peer.frames.next()
      peer.send(DATA, 0, 1, 'cut sho')
      peer.reset(1, code)
      t.same(await fate, [message])
    })
  }

  t.test('also to who does not read', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    peer.send(DATA, 0, 1, Buffer.alloc(16_000))
    peer.reset(1, 0)
    const [error] = await once(tunnel, 'error')
    t.match(error, { message: /NO_ERROR/ })
  })

  t.test('to a tunnel of datagrams it is a loss that says so', async (t) => {
    const relay = await fakeHttp2Relay(t)
    const connection = await connected(t, relay.url)
    const { stream } = await relay.tunnels.next()
    stream.destroy(new Error('for a reason'))
    const [end] = await once(connection, 'close') as [ConnectionEnd]
    t.same(end, { reason: 'lost', text: 'The tunnel was aborted: RST_STREAM with INTERNAL_ERROR', retry: true })
  })

  t.test('but not with NO_ERROR behind the relay’s end: all is read', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    peer.send(DATA, END_STREAM, 1, 'all of it')
    peer.reset(1, 0)
    const bytes = readToEnd(tunnel)
    const closed = once(tunnel, 'close')
    t.equal(await bytes, 'all of it')
    await closed
    t.equal(tunnel.errored, null)
  })
})

t.test('a connection that breaks is the error of all its tunnels', async (t) => {
  const relay = await fakeHttp2Relay(t)
  const tunnels = [await opened(t, relay.url), await opened(t, relay.url)]
  const datagrams = await connected(t, relay.url)
  const end = once(datagrams, 'close')
  const fates = tunnels.map(fateOf)
  const socket = await relay.sockets.next()
  socket.destroy()
  for (const fate of fates) t.same(await fate, ['The tunnel was aborted: the connection was cut'])
  t.match(await end, [{ reason: 'lost', text: 'The tunnel was aborted: the connection was cut', retry: true }])
  t.equal(relay.sockets.all.length, 1)
})

t.test('tunnels with equal settings share a connection', async (t) => {
  t.test('those asked for at once, later, and with other paths, framings and tokens', async (t) => {
    const relay = await fakeHttp2Relay(t, { tls: server })
    const url = new URL('/elsewhere', relay.url)
    await Promise.all([connected(t, relay.url, { tls }), opened(t, relay.url, { tls: { ca: Buffer.from(ca) } })])
    await connected(t, url.href, { tls, token: 'another', framings: ['len16'], host: url.host })
    t.equal(relay.sessions.all.length, 1)
    t.equal(relay.requests.all.length, 3)
  })

  t.test('and close it when the last one has gone, whatever the way', async (t) => {
    const relay = await fakeHttp2Relay(t)
    const ways: Array<(url: string) => Promise<unknown>> = [
      async (url) => (await connected(t, url)).close(),
      async (url) => (await opened(t, url)).destroy(),
      async (url) => await readToEnd((await opened(t, url)).end('all')),
      async (url) => { relay.answers.push(refuseHttp2(403)); await connected(t, url).catch(() => {}) },
      async (url) => { relay.answers.push(({ stream }) => { stream.destroy(new Error('no')) }); await connected(t, url).catch(() => {}) }
    ]
    for (const leave of ways) {
      const [a, b] = [await opened(t, relay.url), await opened(t, relay.url)]
      const session = await relay.sessions.next()
      const closed = new Promise((resolve) => session.on('close', resolve))
      await leave(relay.url)
      a.destroy()
      t.equal(String((await once(b.end('there'), 'data'))[0]), 'there', 'while there is one it lives')
      await closed
    }
    t.equal(relay.sessions.all.length, ways.length)
  })

  t.test('even if the other side does not close it', async (t) => {
    const { url, peers } = await framesServer(t)
    const socket = connectTcp(Number(new URL(url).port), '127.0.0.1')
    const opening = opened(t, url, { createConnection: () => socket })
    const peer = await peers.next()
    peer.socket.allowHalfOpen = true
    await peer.frames.next()
    peer.accept(1)
    const tunnel = await opening
    const closed = once(socket, 'close')
    tunnel.destroy()
    await closed
    t.equal(peer.socket.writable, true)
  })

  t.test('never with others', async (t) => {
    const relay = await fakeHttp2Relay(t, { tls: server })
    const checkServerIdentity = (): undefined => {}
    const settings: ConnectOptions[] = [
      { tls },
      { tls: { ca, rejectUnauthorized: false } },
      { tls: { ca: [ca] } },
      { tls: { ca, cert: fixture('client.pem'), key: fixture('client-key.pem') } },
      { tls: { ca, checkServerIdentity } },
      { tls: { ca, checkServerIdentity: (): undefined => {} } },
      { tls, host: 'relay.example.com' },
      { tls, servername: 'relay.example.com' },
      { tls, keepaliveInterval: 1000 }
    ]
    for (const each of settings) await connected(t, relay.url, each)
    t.equal(relay.sessions.all.length, settings.length)
    for (const each of settings) await connected(t, relay.url, each)
    t.equal(relay.sessions.all.length, settings.length, 'but each with its like')

    const plain = await fakeHttp2Relay(t)
    const toPlain = () => connectTcp(plain.port, '127.0.0.1')
    const url = 'http://relay.example.com/'
    await connected(t, url, { createConnection: toPlain })
    await connected(t, url, { createConnection: () => toPlain() })
    await connected(t, url, { createConnection: toPlain })
    await connected(t, plain.url)
    await connected(t, plain.url.replace('127.0.0.1', 'localhost'), { host: `127.0.0.1:${plain.port}` })
    t.equal(plain.sessions.all.length, 4)
  })

  t.test('as many as the relay allows, and the others the next', async (t) => {
    const relay = await fakeHttp2Relay(t, { server: { settings: { enableConnectProtocol: true, maxConcurrentStreams: 2 } } })
    await Promise.all(Array.from({ length: 5 }, async () => await opened(t, relay.url)))
    t.equal(relay.sessions.all.length, 3)
    await opened(t, relay.url)
    t.equal(relay.sessions.all.length, 3)
  })
})

t.test('GOAWAY', async (t) => {
  t.test('without an error: tunnels live on, and the next one has a new connection', async (t) => {
    const relay = await fakeHttp2Relay(t)
    const first = await opened(t, relay.url)
    const session = await relay.sessions.next()
    const closed = once(session, 'close')
    session.goaway()
    first.write('still here')
    t.equal(String((await once(first, 'data'))[0]), 'still here')
    const second = await opened(t, relay.url)
    t.equal(relay.sessions.all.length, 2)
    first.write('and here')
    t.equal(String((await once(first, 'data'))[0]), 'and here')
    second.end()
    first.end()
    await closed
  })

  t.test('with an error ends them, and says which', async (t) => {
    const { tunnel, peer } = await framesPair(t)
    const fate = fateOf(tunnel)
    peer.goaway(1, 11)
    t.same(await fate, ['The tunnel was aborted: GOAWAY with ENHANCE_YOUR_CALM'])
  })

  t.test('that crosses a request: it is sent again on a new connection', async (t) => {
    const { url, peers } = await framesServer(t)
    const opening = opened(t, url)
    const first = await peers.next()
    await first.frames.next()
    first.goaway(0, 0)
    const second = await peers.next()
    await second.frames.next()
    second.accept(1)
    await opening
  })
})

t.test('a request that the relay has not looked at is sent once more, on a new connection', async (t) => {
  t.test('REFUSED_STREAM', async (t) => {
    const { url, peers } = await framesServer(t)
    const opening = opened(t, url)
    const first = await peers.next()
    await first.frames.next()
    first.reset(1, 7)
    const second = await peers.next()
    await second.frames.next()
    second.accept(1)
    await opening
    await first.closed
  })

  t.test('but not a third time', async (t) => {
    const { url, peers } = await framesServer(t)
    const opening = opened(t, url)
    opening.catch(() => {})
    for (let i = 0; i < 2; i++) {
      const peer = await peers.next()
      await peer.frames.next()
      peer.reset(1, 7)
    }
    await t.rejects(opening, { code: 'FST_RELAY_CONNECT', message: /RST_STREAM with REFUSED_STREAM/ })
    t.equal(peers.all.length, 2)
  })

  t.test('a shared connection that breaks meanwhile', async (t) => {
    const { url, peers } = await framesServer(t)
    const firstOpening = opened(t, url)
    const first = await peers.next()
    await first.frames.next()
    first.accept(1)
    await firstOpening
    const opening = opened(t, url)
    await first.frames.next()
    first.socket.destroy()
    const second = await peers.next()
    await second.frames.next()
    second.accept(1)
    await opening
  })

  t.test('but not on a connection of its own, or where the tunnel alone is reset', async (t) => {
    const { url, peers } = await framesServer(t)
    const breaking = opened(t, url)
    breaking.catch(() => {})
    const first = await peers.next()
    await first.frames.next()
    first.socket.destroy()
    await t.rejects(breaking, { code: 'FST_RELAY_CONNECT', message: /the connection was cut/ })
    const resetting = opened(t, url)
    resetting.catch(() => {})
    const second = await peers.next()
    await second.frames.next()
    second.reset(1, 2)
    await t.rejects(resetting, { code: 'FST_RELAY_CONNECT', message: /INTERNAL_ERROR/, cause: { code: 'FST_RELAY_ABORTED' } })
    t.equal(peers.all.length, 2)
  })

  t.test('while a later one has a new connection anyway', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [() => false, ({ stream }) => { stream.destroy(new Error('no')) }] })
    await opened(t, relay.url)
    await t.rejects(connect(relay.url, { httpVersion: 2 }), { code: 'FST_RELAY_CONNECT', message: /INTERNAL_ERROR/ })
    await opened(t, relay.url)
    t.equal(relay.sessions.all.length, 2)
  })
})

t.test('a server that takes no tunnels over HTTP/2 is told by a code of its own', async (t) => {
  t.test('its SETTINGS lack ENABLE_CONNECT_PROTOCOL', async (t) => {
    const relay = await fakeHttp2Relay(t, { server: { settings: {} } })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), {
      code: 'FST_RELAY_HTTP2', message: 'The server takes no tunnels over HTTP/2: its SETTINGS lack ENABLE_CONNECT_PROTOCOL (RFC 8441)'
    })
    t.equal(relay.requests.all.length, 0)
  })

  t.test('its ALPN has only HTTP/1.1', async (t) => {
    const port = await listening(t, createHttpsServer(server))
    await t.rejects(connect(`https://127.0.0.1:${port}`, { httpVersion: 2, tls }), { code: 'FST_RELAY_HTTP2', message: /: it refuses h2 in ALPN$/ })
  })

  t.test('it has no ALPN', async (t) => {
    const port = await listening(t, createTlsServer(server, (socket) => { socket.on('error', () => {}) }))
    await t.rejects(connect(`https://127.0.0.1:${port}`, { httpVersion: 2, tls }), { code: 'FST_RELAY_HTTP2', message: /: it has not chosen h2 in ALPN$/ })
  })

  t.test('it speaks HTTP/1.1', async (t) => {
    const port = await listening(t, createHttpServer())
    await t.rejects(connect(`http://127.0.0.1:${port}`, { httpVersion: 2 }), { code: 'FST_RELAY_HTTP2', message: /: what it sends is not HTTP\/2/ })
  })

  t.test('it wants HTTP/1.1', async (t) => {
    const { url, peers } = await framesServer(t)
    const opening = connect(url, { httpVersion: 2 })
    opening.catch(() => {})
    const peer = await peers.next()
    await peer.frames.next()
    peer.reset(1, 13)
    await t.rejects(opening, { code: 'FST_RELAY_HTTP2', message: /HTTP_1_1_REQUIRED/ })
  })
})

t.test('a refusal is the same as over HTTP/1.1', async (t) => {
  t.test('status, code, message and when to come again', async (t) => {
    const body = { statusCode: 503, code: 'FST_RELAY_HUB_FULL', error: 'Service Unavailable', message: 'This relay has its 9 peers already' }
    const relay = await fakeHttp2Relay(t, { answers: [refuseHttp2(503, body, { 'retry-after': '7' })] })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), {
      code: 'FST_RELAY_REFUSED',
      statusCode: 503,
      relayCode: 'FST_RELAY_HUB_FULL',
      retryAfter: 7,
      message: 'The relay answered 503: FST_RELAY_HUB_FULL, This relay has its 9 peers already'
    })
  })

  t.test('without a body, and to another place', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [refuseHttp2(308, undefined, { location: 'https://elsewhere.example.com/' })] })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), { message: 'Something between you and the relay answered 308: Permanent Redirect, to https://elsewhere.example.com/ (a login page?)' })
  })

  t.test('whose stream is ended with its head', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [({ stream }) => stream.respond({ ':status': 401 }, { endStream: true })] })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), { code: 'FST_RELAY_REFUSED', answeredBy: 'between', message: 'Something between you and the relay answered 401: Unauthorized' })
  })

  t.test('whose body is long is read as far as 16 KiB', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [({ stream }) => { stream.respond({ ':status': 403 }); stream.write(Buffer.alloc(100_000)) }] })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), { code: 'FST_RELAY_REFUSED', statusCode: 403 })
  })

  t.test('whose body stands still is reported when the time is over, or it is reset', async (t) => {
    const relay = await fakeHttp2Relay(t, {
      answers: [
        ({ stream }) => { stream.respond({ ':status': 403 }); stream.write('{') },
        ({ stream }) => { stream.respond({ ':status': 403 }); stream.write('{', () => stream.destroy()) }
      ]
    })
    await t.rejects(connect(relay.url, { httpVersion: 2, handshakeTimeout: 200 }), { code: 'FST_RELAY_REFUSED', statusCode: 403 })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), { code: 'FST_RELAY_REFUSED', statusCode: 403 })
  })

  t.test('an answer without Spanza-Framing is no relay’s', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [({ stream }) => stream.respond({ ':status': 200 })] })
    await t.rejects(connect(relay.url, { httpVersion: 2 }), { code: 'FST_RELAY_ANSWER', message: /removed Spanza-Framing/ })
  })
})

t.test('what fails before is told with its cause', async (t) => {
  const relay = await fakeHttp2Relay(t, { tls: server })
  await t.rejects(connect(relay.url, { httpVersion: 2 }), { code: 'FST_RELAY_CONNECT', cause: { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' } })
  await t.rejects(connect(relay.url, { httpVersion: 2, tls, servername: 'other.example.com' }), { code: 'FST_RELAY_CONNECT', cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' } })
  const free = createTcpServer()
  const port = await listening(t, free)
  await new Promise((resolve) => free.close(resolve))
  for (const scheme of ['http', 'https']) {
    await t.rejects(connect(`${scheme}://127.0.0.1:${port}`, { httpVersion: 2 }), { code: 'FST_RELAY_CONNECT', cause: { code: 'ECONNREFUSED' } })
  }
  const closing = await listening(t, createTcpServer((socket) => socket.destroy()))
  await t.rejects(connect(`http://127.0.0.1:${closing}`, { httpVersion: 2 }), { code: 'FST_RELAY_CONNECT' })
  const createConnection = () => { throw new Error('no modem') }
  await t.rejects(connect('http://127.0.0.1/', { httpVersion: 2, createConnection }), { code: 'FST_RELAY_CONNECT', message: /no modem/ })
})

t.test('time and signal', async (t) => {
  t.test('no time is left: while it connects, for SETTINGS, and for the answer', async (t) => {
    const silent = new Mailbox<unknown>()
    const port = await listening(t, createTcpServer((socket) => {
      t.teardown(() => socket.destroy())
      socket.resume().on('error', () => {}).on('close', () => silent.push(true))
    }))
    for (const scheme of ['http', 'https']) {
      await t.rejects(connect(`${scheme}://127.0.0.1:${port}`, { httpVersion: 2, handshakeTimeout: 100 }), {
        code: 'FST_RELAY_CONNECT', message: 'Could not connect to the relay: no answer within 100 ms'
      })
      await silent.next()
    }
    const { url, peers } = await framesServer(t)
    await t.rejects(connect(url, { httpVersion: 2, handshakeTimeout: 300 }), { code: 'FST_RELAY_CONNECT', message: /no answer within 300 ms/ })
    const peer = await peers.next()
    t.match(await peer.frames.next(), { type: HEADERS })
    t.match(await peer.frames.next(), { type: RST_STREAM, payload: Buffer.from([0, 0, 0, 8]) })
  })

  t.test('then the next attempt has a new connection, and tunnels keep theirs', async (t) => {
    const relay = await fakeHttp2Relay(t, { answers: [() => false, () => {}] })
    const tunnel = await opened(t, relay.url)
    await t.rejects(connect(relay.url, { httpVersion: 2, handshakeTimeout: 200 }), { code: 'FST_RELAY_CONNECT' })
    await opened(t, relay.url)
    t.equal(relay.sessions.all.length, 2)
    tunnel.write('still here')
    t.equal(String((await once(tunnel, 'data'))[0]), 'still here')
  })

  t.test('a signal gives up one attempt alone, with its reason', async (t) => {
    await t.rejects(connect('http://127.0.0.1:1/', { httpVersion: 2, signal: AbortSignal.abort() }), { name: 'AbortError' })
    const relay = await fakeHttp2Relay(t, { answers: [() => {}] })
    const [early, late] = [new AbortController(), new AbortController()]
    const first = connect(relay.url, { httpVersion: 2, signal: early.signal })
    const second = connect(relay.url, { httpVersion: 2, signal: late.signal })
    const third = connected(t, relay.url)
    early.abort(new Error('too early'))
    await t.rejects(first, { message: 'too early' })
    const { stream } = await relay.requests.next()
    const closed = once(stream, 'close')
    late.abort(new Error('too late'))
    await t.rejects(second, { message: 'too late' })
    await closed
    t.equal(stream.rstCode, 8)
    const connection = await third
    late.abort()
    connection.send(Buffer.from('still here'))
    t.equal(String(await (await relay.tunnels.next()).datagrams.next()), 'still here')
    t.equal(relay.sessions.all.length, 1)
  })
})

t.test('flow control', async (t) => {
  const blast = Buffer.alloc(1024 * 1024)
  const relay = await fakeHttp2Relay(t, {
    server: { maxSessionMemory: 1000, settings: { enableConnectProtocol: true } }, // else Node takes no stream beside this one
    answers: [({ stream }) => {
      stream.respond({ ':status': 200 })
      for (let i = 0; i < 32; i++) stream.write(blast)
    }]
  })
  const stalled = await opened(t, relay.url)
  const { stream } = await relay.requests.next()
  const other = await opened(t, relay.url)
  const bytes = Buffer.alloc(40_000_000, 'on its way ')
  other.end(bytes)
  let length = 0
  for await (const chunk of other) length += chunk.length
  t.equal(length, bytes.length, 'a tunnel that is not read from holds up no other')
  t.ok(stream.writableLength >= 27 * 1024 * 1024, `and holds no more than its window: ${stream.writableLength} are still with the relay`)
  let rest = 0
  for await (const chunk of stalled) {
    rest += chunk.length
    if (rest === 32 * blast.length) break
  }
  t.equal(rest, 32 * blast.length)
})

t.test('a silent connection is asked with PING, and given up without an answer', async (t) => {
  const { url, peers } = await framesServer(t)
  const opening = connected(t, url, { framings: ['len16'], keepaliveInterval: 20, keepaliveTimeout: 400 })
  const peer = await peers.next()
  await peer.frames.next()
  peer.accept(1, { 'spanza-framing': 'len16' })
  const connection = await opening
  // The tunnel itself has its keepalives all the time.
  const keepalives = setInterval(() => peer.send(DATA, 0, 1, len16.keepalive()), 20)
  t.teardown(() => clearInterval(keepalives))
  await peer.pings.take(30)
  t.equal(connection.closed, false)
  peer.answersPings = false
  t.match(await once(connection, 'close'), [{ reason: 'lost', text: 'The tunnel was aborted: no PING was answered for 400 ms' }])
})

t.test('a transport of the user’s', async (t) => {
  const relay = await fakeHttp2Relay(t)
  t.test('is used as it is, also with an https: URL', async (t) => {
    const connection = await connected(t, 'https://relay.example.com/', { createConnection: () => connectTcp(relay.port, '127.0.0.1') })
    t.match((await relay.requests.next()).headers, { ':scheme': 'https', ':authority': 'relay.example.com' })
    connection.send(Buffer.from('hello'))
    t.equal(String(await (await relay.tunnels.next()).datagrams.next()), 'hello')
  })

  t.test('need not be a socket', async (t) => {
    const createConnection = (): Duplex => {
      const socket = connectTcp(relay.port, '127.0.0.1')
      return Duplex.from({ readable: socket, writable: socket })
    }
    const tunnel = await opened(t, relay.url, { createConnection })
    tunnel.end('there and back')
    t.equal(await readToEnd(tunnel), 'there and back')
  })
})

t.test('a sidecar', async (t) => {
  t.test('carries datagrams, and comes back after a reset', async (t) => {
    const relay = await fakeHttp2Relay(t)
    const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', httpVersion: 2 })
    t.teardown(() => sidecar.close())
    const address = await sidecar.start()
    const peer = (await udpPeer(t)).to(address)
    for (let round = 0; round < 2; round++) {
      const tunnel = await relay.tunnels.next()
      peer.send(Buffer.from(`there ${round}`))
      t.equal(String(await tunnel.datagrams.next()), `there ${round}`)
      tunnel.send(Buffer.from(`back ${round}`))
      t.equal(String(await peer.received.next()), `back ${round}`)
      const lost = once(sidecar, 'lost')
      tunnel.stream.destroy()
      t.match(await lost, [{ reason: 'lost', text: /NO_ERROR/ }])
    }
  })

  t.test('tries again where there is no HTTP/2: it may be something in between that has none', async (t) => {
    const relay = await fakeHttp2Relay(t, { server: { settings: {} } })
    const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', httpVersion: 2 })
    t.teardown(() => sidecar.close())
    const retry = once(sidecar, 'retry')
    await sidecar.start()
    t.match(await retry, [{ error: { code: 'FST_RELAY_HTTP2' } }])
  })
})

t.test('an option that cannot be used is named with its value', async (t) => {
  const url = 'http://127.0.0.1:1/'
  const cases: Array<[string, object, RegExp]> = [
    ['another version', { httpVersion: 3 }, /option httpVersion must be 1 or 2, not 3/],
    ['the version as text', { httpVersion: '2' }, /option httpVersion must be 1 or 2, not '2'/],
    ['the HTTPUpgrade transport', { httpVersion: 2, protocol: 'websocket', keyless: true }, /option httpVersion must be 1 with protocol 'websocket' and keyless/],
    ['early data', { httpVersion: 2, framings: 'raw', earlyData: Buffer.alloc(1) }, /option earlyData must be absent with httpVersion 2/],
    ['a header of HTTP/1.1', { httpVersion: 2, headers: { 'Keep-Alive': '1' } }, /option headers\['Keep-Alive'\] must be absent over HTTP\/2/],
    ['a header that the handshake writes', { httpVersion: 2, headers: { Host: 'a' } }, /option headers\['Host'\] must be absent; use the option host/],
    ['a pseudo-header', { httpVersion: 2, headers: { ':path': '/' } }, /option headers must be an object of valid header names, not ':path'/]
  ]
  for (const [name, options, message] of cases) {
    await t.rejects(connect(url, options as ConnectOptions), { code: 'FST_RELAY_CLIENT_OPTION', message }, name)
  }
})
