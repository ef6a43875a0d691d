import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect as connectTcp, createServer as createTcpServer, Socket, type AddressInfo } from 'node:net'
import { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import t, { type Test } from 'tap'
import { connect, errors, RelayConnection, type ConnectOptions, type RelayRefusedError } from '../../lib/client/index.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { fakeRelay, frames, refuse, say, SWITCHING, type FakeRelayOptions } from '../helpers/fake-relay.ts'

const fixture = (name: string) => readFileSync(new URL(`../fixtures/${name}`, import.meta.url))

/** Connects, and closes when the test ends. */
async function connected (t: Test, url: string, options: ConnectOptions = {}): Promise<RelayConnection> {
  const connection = await connect(url, options)
  t.teardown(() => connection.close())
  return connection
}

/** A server that takes one connection and gives the first bytes of it; answers with `answer`. */
async function rawServer (t: Test, answer: string): Promise<{ url: string, request: Promise<string> }> {
  const server = createTcpServer()
  t.teardown(() => server.close())
  const request = new Promise<string>((resolve) => {
    server.on('connection', (socket) => {
      t.teardown(() => socket.destroy())
      socket.on('error', () => {})
      socket.once('data', (bytes) => {
        resolve(bytes.toString('latin1'))
        socket.write(answer)
      })
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/relay`, request }
}

t.test('asks with its framings, its headers and its token, names in the case given', async (t) => {
  const { url, request } = await rawServer(t, `${SWITCHING}Spanza-Framing: LEN16\r\n\r\n`)
  const connection = await connected(t, `${url}?a=b#fragment`, {
    framings: ['len16', 'wg'],
    host: 'relay.example.com:8443',
    token: 's3cret',
    headers: { 'x-lower': 'one', 'X-UPPER': ['two', 'three'] }
  })
  t.equal(await request, [
    'GET /relay?a=b HTTP/1.1',
    'Host: relay.example.com:8443',
    'Connection: Upgrade',
    'Upgrade: spanza',
    'Spanza-Framing: len16, wg',
    'Authorization: Bearer s3cret',
    'x-lower: one',
    'X-UPPER: two',
    'X-UPPER: three',
    '', ''
  ].join('\r\n'))
  t.equal(connection.framing, 'len16')
})

t.test('learns from the answer which framing and which size', async (t) => {
  const relay = await fakeRelay(t, { maxPacket: 2048 })
  const connection = await connected(t, relay.url)
  t.type(connection, RelayConnection)
  t.equal(connection.framing, 'wg')
  t.equal(connection.maxPacketSize, 2048)
  t.equal((await relay.requests.next()).headers.host, `127.0.0.1:${relay.port}`)
})

t.test('takes 65535 bytes as the size when the answer gives none', async (t) => {
  const relay = await fakeRelay(t, { answers: [say(`${SWITCHING}Spanza-Framing: wg\r\n\r\n`)] })
  t.equal((await connected(t, relay.url)).maxPacketSize, 65535)
})

for (const framing of [wg, len16]) {
  t.test(`reads ${framing.name} datagrams in the same segment as the 101`, async (t) => {
    const datagrams = [Buffer.from('first'), Buffer.from('second')]
    const head = frames(framing, datagrams)
    // The third is cut: its rest comes later.
    const third = frames(framing, [Buffer.from('the third')])
    let rest = () => {}
    const relay = await fakeRelay(t, {
      answers: [(_request, socket) => {
        socket.write(Buffer.concat([Buffer.from(`${SWITCHING}Spanza-Framing: ${framing.name}\r\n\r\n`), head, third.subarray(0, 5)]))
        rest = () => socket.write(third.subarray(5))
      }]
    })
    const connection = await connected(t, relay.url, { framings: [framing.name] })
    const received: string[] = []
    await new Promise<void>((resolve) => {
      connection.on('message', (datagram) => {
        received.push(datagram.toString())
        if (received.length === 2) rest()
        if (received.length === 3) resolve()
      })
    })
    t.same(received, ['first', 'second', 'the third'])
  })
}

t.test('gives the raw tunnel, asked for without a framing', async (t) => {
  const { url, request } = await rawServer(t, `${SWITCHING}\r\nearly bytes`)
  const tunnel = await connect(url, { framings: 'raw' })
  t.teardown(() => tunnel.destroy())
  t.notMatch(await request, /framing/i)
  const [bytes] = await once(tunnel, 'data')
  t.equal(bytes.toString(), 'early bytes')
  t.equal((tunnel as Socket).allowHalfOpen, true)
})

t.test('the raw tunnel is half-open: after the relay’s end this side can still write', async (t) => {
  let server: Socket | undefined
  const relay = await fakeRelay(t, { answers: [(_request, socket) => { server = socket; socket.end(`${SWITCHING}\r\n`) }] })
  const tunnel = await connect(relay.url, { framings: 'raw' })
  t.teardown(() => tunnel.destroy())
  tunnel.resume()
  await once(tunnel, 'end')
  tunnel.end('after the end')
  const [bytes] = await once(server!, 'data')
  t.equal(bytes.toString(), 'after the end')
})

t.test('a reset right after the 101 harms nobody', async (t) => {
  const relay = await fakeRelay(t, {
    answers: [(_request, socket) => { socket.write(`${SWITCHING}\r\n`, () => setImmediate(() => socket.resetAndDestroy())) }]
  })
  const tunnel = await connect(relay.url, { framings: 'raw' })
  // Not once(), which would listen to errors. The reset arrives as an error or, now and then, as an end.
  await new Promise<void>((resolve) => { tunnel.resume().on('end', () => tunnel.end()).on('close', resolve) })
  t.equal(tunnel.destroyed, true)
})

t.test('a refusal', async (t) => {
  const refused = async (t: Test, options: FakeRelayOptions): Promise<RelayRefusedError> => {
    const relay = await fakeRelay(t, options)
    const error = await connect(relay.url).then(() => undefined, (error) => error)
    t.type(error, errors.FST_RELAY_REFUSED)
    return error
  }

  t.test('says status, code, message and when to come again', async (t) => {
    const body = { statusCode: 503, code: 'FST_RELAY_HUB_FULL', error: 'Service Unavailable', message: 'This relay has its 9 peers \u001b[31malready' }
    const error = await refused(t, { answers: [refuse('503 Service Unavailable', body, 'Retry-After: 7\r\n')] })
    t.match(error, { code: 'FST_RELAY_REFUSED', statusCode: 503, answeredBy: 'relay', relayCode: 'FST_RELAY_HUB_FULL', retryAfter: 7 })
    t.equal(error.message, 'The relay answered 503: FST_RELAY_HUB_FULL, This relay has its 9 peers [31malready')
  })

  t.test('without a JSON body is somebody else’s, and says the status and the server', async (t) => {
    const error = await refused(t, { answers: [say('HTTP/1.1 404 Not Here\r\nServer: ingress\r\nContent-Length: 6\r\n\r\n<html>')] })
    t.equal(error.message, 'Something between you and the relay answered 404: Not Here, Server: ingress (a server that does not know the relay, or not yet; is the path right?)')
    t.equal(error.answeredBy, 'between')
    t.notOk('relayCode' in error)
    t.notOk('retryAfter' in error)
  })

  t.test('with a redirection says where to', async (t) => {
    const error = await refused(t, { answers: [refuse('308 Permanent Redirect', undefined, 'Location: https://elsewhere.example.com/\r\n')] })
    t.equal(error.message, 'Something between you and the relay answered 308: Permanent Redirect, to https://elsewhere.example.com/ (a login page?)')
  })

  t.test('with a date in Retry-After', async (t) => {
    const date = new Date(Date.now() + 60_000).toUTCString()
    const { retryAfter } = await refused(t, { answers: [refuse('429 Too Many Requests', {}, `Retry-After: ${date}\r\n`)] })
    t.ok(retryAfter! > 55 && retryAfter! <= 60, `${retryAfter}`)
  })

  t.test('with a body that never ends is read as far as 16 KiB', async (t) => {
    const error = await refused(t, {
      answers: [(_request, socket) => {
        socket.write('HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n')
        const more = () => { if (socket.write(`4000\r\n${'x'.repeat(0x4000)}\r\n`)) setImmediate(more) }
        socket.on('drain', more)
        more()
      }]
    })
    t.equal(error.statusCode, 403)
  })

  t.test('whose body stands still is reported when the time is over', async (t) => {
    const relay = await fakeRelay(t, { answers: [say('HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\n{')] })
    await t.rejects(connect(relay.url, { handshakeTimeout: 100 }), { code: 'FST_RELAY_REFUSED', statusCode: 403 })
  })

  t.test('of an ordinary route: a 200 is no tunnel', async (t) => {
    const server = createServer((_request, response) => { response.end('hello') }).listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    await t.rejects(connect(`http://127.0.0.1:${port}/`), { code: 'FST_RELAY_REFUSED', statusCode: 200 })
  })
})

t.test('an answer that is no relay’s destroys the connection', async (t) => {
  const cases: Array<[string, string, string, 'raw'?]> = [
    ['without Spanza-Framing', `${SWITCHING}\r\n`, 'The answer is not what a relay sends: a proxy removed Spanza-Framing, or the server is older'],
    ['with a framing that was not asked for', `${SWITCHING}Spanza-Framing: raw\r\n\r\n`, 'The answer is not what a relay sends: it chose the framing "raw", which was not asked for'],
    ['with another Upgrade', 'HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSpanza-Framing: wg\r\n\r\n', 'The answer is not what a relay sends: a 101 with "Upgrade: websocket"'],
    ['without Upgrade', 'HTTP/1.1 101 S\r\nSpanza-Framing: wg\r\n\r\n', 'The answer is not what a relay sends: a 101 without "Upgrade: spanza"'],
    ['with another Upgrade, for raw', 'HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n', 'The answer is not what a relay sends: a 101 with "Upgrade: websocket"', 'raw'],
    ['with a size of 0', `${SWITCHING}Spanza-Framing: wg\r\nSpanza-Max-Packet: 0\r\n\r\n`, 'The answer is not what a relay sends: "Spanza-Max-Packet: 0"'],
    ['with a size that is none', `${SWITCHING}Spanza-Framing: wg\r\nSpanza-Max-Packet: 1e3\r\n\r\n`, 'The answer is not what a relay sends: "Spanza-Max-Packet: 1e3"']
  ]
  for (const [name, answer, message, raw] of cases) {
    t.test(name, async (t) => {
      let closed: Promise<unknown> | undefined
      const relay = await fakeRelay(t, {
        answers: [(_request, socket) => {
          closed = once(socket.resume(), 'end')
          socket.write(answer)
        }]
      })
      const attempt: Promise<unknown> = raw === undefined ? connect(relay.url) : connect(relay.url, { framings: raw })
      await t.rejects(attempt, { code: 'FST_RELAY_ANSWER', message })
      await closed
    })
  }
})

t.test('a failure of the network is told with its cause', async (t) => {
  t.test('nobody listens', async (t) => {
    const { url } = await rawServer(t, '')
    const free = createTcpServer().listen(0, '127.0.0.1')
    await once(free, 'listening')
    const { port } = free.address() as AddressInfo
    await new Promise((resolve) => free.close(resolve))
    await t.rejects(connect(url.replace(/:\d+/, `:${port}`)), {
      code: 'FST_RELAY_CONNECT', message: `Could not connect to the relay: connect ECONNREFUSED 127.0.0.1:${port}`, cause: { code: 'ECONNREFUSED' }
    })
  })

  t.test('a name with several addresses of which none answers', async (t) => {
    const free = createTcpServer().listen(0, '127.0.0.1')
    await once(free, 'listening')
    const { port } = free.address() as AddressInfo
    await new Promise((resolve) => free.close(resolve))
    await t.rejects(connect(`http://localhost:${port}/`), { code: 'FST_RELAY_CONNECT', message: /ECONNREFUSED/ })
  })

  t.test('the relay hangs up', async (t) => {
    const relay = await fakeRelay(t, { answers: [(_request, socket) => { socket.destroy() }] })
    await t.rejects(connect(relay.url), { code: 'FST_RELAY_CONNECT', message: /socket hang up/ })
  })

  t.test('what answers is not HTTP', async (t) => {
    const { url } = await rawServer(t, 'SSH-2.0-OpenSSH_9.2\r\n')
    await t.rejects(connect(url), { code: 'FST_RELAY_CONNECT', message: /Parse Error/ })
  })

  t.test('no answer in time', async (t) => {
    const { url, request } = await rawServer(t, '')
    const attempt = connect(url, { handshakeTimeout: 200 })
    attempt.catch(() => {})
    await request
    await t.rejects(attempt, { code: 'FST_RELAY_CONNECT', message: 'Could not connect to the relay: no answer within 200 ms' })
  })
})

t.test('a signal gives up connecting, with its reason, and leaves a connection alone', async (t) => {
  await t.rejects(connect('http://127.0.0.1:1/', { signal: AbortSignal.abort() }), { name: 'AbortError' })

  const { url, request } = await rawServer(t, '')
  const controller = new AbortController()
  const attempt = connect(url, { signal: controller.signal })
  attempt.catch(() => {})
  await request
  controller.abort(new Error('not today'))
  await t.rejects(attempt, { message: 'not today' })

  const relay = await fakeRelay(t)
  const later = new AbortController()
  const connection = await connected(t, relay.url, { signal: later.signal })
  later.abort()
  connection.send(Buffer.from('still here'))
  t.equal(String(await (await relay.tunnels.next()).datagrams.next()), 'still here')
})

t.test('TLS', async (t) => {
  const server = { cert: fixture('server.pem'), key: fixture('server-key.pem') }
  const ca = fixture('ca.pem')

  t.test('with an authority of its own and a client certificate, over HTTP/1.1 in ALPN', async (t) => {
    const relay = await fakeRelay(t, { tls: { ...server, ca, requestCert: true, rejectUnauthorized: true } })
    const connection = await connected(t, relay.url, {
      host: 'relay.example.com',
      tls: { ca, cert: fixture('client.pem'), key: fixture('client-key.pem') }
    })
    const { socket } = await relay.tunnels.next()
    const tls = socket as TLSSocket & { servername: string }
    t.equal(tls.getPeerCertificate().subject.CN, 'A client')
    t.equal(tls.servername, 'relay.example.com')
    t.equal(tls.alpnProtocol, 'http/1.1')
    connection.send(Buffer.from('hello'))
  })

  t.test('checks the certificate against the name asked for', async (t) => {
    const relay = await fakeRelay(t, { tls: server })
    await t.rejects(connect(relay.url, { servername: 'other.example.com', tls: { ca } }), {
      code: 'FST_RELAY_CONNECT', cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }
    })
    const connection = await connected(t, relay.url, { host: 'other.example.com', servername: 'localhost', tls: { ca } })
    t.equal(connection.closed, false)
  })

  t.test('checks the certificate against an address', async (t) => {
    const relay = await fakeRelay(t, { tls: server })
    const connection = await connected(t, relay.url, { tls: { ca } })
    t.equal(connection.closed, false)
  })

  t.test('an authority it does not know is a failure, unless told not to look', async (t) => {
    const relay = await fakeRelay(t, { tls: server })
    await t.rejects(connect(relay.url), { code: 'FST_RELAY_CONNECT', cause: { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' } })
    const connection = await connected(t, relay.url, { tls: { rejectUnauthorized: false } })
    t.equal(connection.closed, false)
  })
})

t.test('a transport of the user’s', async (t) => {
  t.test('is used as it is, also with an https: URL', async (t) => {
    const relay = await fakeRelay(t)
    const connection = await connected(t, 'https://relay.example.com/', {
      createConnection: () => connectTcp(relay.port, '127.0.0.1')
    })
    t.equal((await relay.requests.next()).headers.host, 'relay.example.com')
    connection.send(Buffer.from('hello'))
    t.equal(String(await (await relay.tunnels.next()).datagrams.next()), 'hello')
  })

  t.test('that is no socket: received memory is copied before it is changed', async (t) => {
    const message = Buffer.concat([Buffer.from([4, 0, 0, 32]), Buffer.alloc(28, 7)])
    const shared = Buffer.from(message)
    const transport = new Duplex({
      read () {},
      write (_chunk, _encoding, callback) {
        callback()
        this.push(`${SWITCHING}Spanza-Framing: wg\r\n\r\n`)
      }
    })
    const connection = await connected(t, 'http://relay.example.com/', { createConnection: () => transport })
    transport.push(shared)
    const [datagram] = await once(connection, 'message')
    t.same(datagram.subarray(0, 5), [4, 0, 0, 0, 7])
    t.same(shared, message)
    transport.destroy()
  })

  t.test('that fails is a failure to connect', async (t) => {
    const createConnection = () => { throw new Error('no modem') }
    await t.rejects(connect('http://127.0.0.1/', { createConnection }), {
      code: 'FST_RELAY_CONNECT', message: /no modem/, cause: { message: 'no modem' }
    })
    const failing = () => connectTcp(1, '127.0.0.1').destroy(new Error('cable cut'))
    await t.rejects(connect('http://127.0.0.1/', { createConnection: failing }), { code: 'FST_RELAY_CONNECT', message: /cable cut/ })
  })
})

t.test('an option that cannot be used is named with its value', async (t) => {
  const url = 'http://127.0.0.1:1/'
  const cases: Array<[string, string | URL, unknown, RegExp]> = [
    ['no URL', 'relay.example.com', {}, /option url must be an http: or https: URL, not 'relay\.example\.com'/],
    ['another scheme', 'wss://relay.example.com', {}, /option url .* not 'wss:/],
    ['credentials', 'https://user:secret@relay.example.com', {}, /option url must be without user name and password/],
    ['an empty list of framings', url, { framings: [] }, /option framings .* not \[\]/],
    ['an unknown framing', url, { framings: ['wg', 'raw'] }, /option framings .* not \[ 'wg', 'raw' \]/],
    ['a framing twice', url, { framings: ['wg', 'wg'] }, /option framings/],
    ['a header that the handshake writes', url, { headers: { HOST: 'a' } }, /option headers\['HOST'\] must be absent; use the option host/],
    ['a header with a body’s length', url, { headers: { 'Content-Length': '1' } }, /has no body/],
    ['a header twice', url, { headers: { 'X-A': '1', 'x-a': '2' } }, /option headers\['x-a'\] must be given once/],
    ['Authorization with a token', url, { token: 'a', headers: { authorization: 'b' } }, /must be absent with a token/],
    ['a bad header name', url, { headers: { 'a b': '1' } }, /option headers must be an object of valid header names, not 'a b'/],
    ['a header that is split', url, { headers: { 'X-A': 'a\r\nX-B: b' } }, /option headers\['X-A'\]/],
    ['a header without value', url, { headers: { 'X-A': undefined } }, /option headers\['X-A'\]/],
    ['an empty token', url, { token: '' }, /option token must be a string that is not empty/],
    ['a token with a line break', url, { token: 'secret\n' }, /option token must be printable/],
    ['a host with a path', url, { host: 'a/b' }, /option host .* not 'a\/b'/],
    ['an address as servername', url, { servername: '127.0.0.1' }, /option servername .* not '127\.0\.0\.1'/],
    ['TLS options without TLS', url, { tls: {} }, /option tls must be absent with an http: URL/],
    ['TLS options with a transport', 'https://a/', { tls: {}, createConnection: () => {} }, /option tls must be absent with createConnection/],
    ['a certificate that is none', 'https://a/', { tls: { cert: 'none', key: 'secret' } }, /option tls/],
    ['a transport that is no function', url, { createConnection: {} }, /option createConnection must be a function/],
    ['a transport that gives no stream', url, { createConnection: () => ({}) }, /option createConnection .* returns a Duplex/],
    ['a signal that is none', url, { signal: {} }, /option signal/],
    ['no time for the handshake', url, { handshakeTimeout: 0 }, /option handshakeTimeout must be an integer from 1 to 2147483647, not 0/],
    ['a keepalive that is longer than the timeout', url, { keepaliveInterval: 75_000 }, /option keepaliveTimeout must be more than keepaliveInterval \(75000\), not 75000/],
    ['packets above 65535 bytes', url, { maxPacketSize: 65536 }, /option maxPacketSize must be an integer from 1 to 65535, not 65536/],
    ['options that are none', url, null, /option options/]
  ]
  for (const [name, url, options, message] of cases) {
    await t.test(name, async (t) => {
      const error = await connect(url, options as ConnectOptions).then(() => undefined, (error) => error)
      t.match(error, { code: 'FST_RELAY_CLIENT_OPTION', message })
      t.notMatch(error?.message, /secret/)
    })
  }
})

t.test('an error about TLS options does not show the private key', async (t) => {
  const tls = { cert: fixture('client.pem').toString(), key: fixture('client-key.pem').toString() }
  const cases = [
    connect('http://localhost:1', { tls }),
    connect('https://localhost:1', { tls, createConnection: () => { throw new Error('not to be called') } }),
    connect('https://localhost:1', { tls: { ...tls, cert: 'none' } })
  ]
  for (const attempt of cases) {
    const error = await attempt.then(() => undefined, (error: Error) => error)
    t.match(error, { code: 'FST_RELAY_CLIENT_OPTION' })
    t.notMatch(error!.message, /PRIVATE|MI[GIH]/)
  }
})
