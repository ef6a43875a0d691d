import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import t, { type Test } from 'tap'
import { connect, UdpSidecar } from '../../../lib/client/index.ts'
import { decodeProxyHeader } from '../../../lib/util/proxy-header.ts'
import { connectProxy } from '../../helpers/connect-proxy.ts'
import { fakeHttp2Relay } from '../../helpers/fake-http2-relay.ts'
import { fakeRelay } from '../../helpers/fake-relay.ts'
import { freePort } from '../../helpers/ports.ts'
import { serverCertificate } from '../../helpers/relay-app.ts'

// The client's options `proxy`, `proxyTls`, `localAddress`, and what is asynchronous in `createConnection`.

const ca = readFileSync(new URL('../../fixtures/ca.pem', import.meta.url))
const trust = { ca }
const variables = ['https_proxy', 'http_proxy', 'all_proxy', 'no_proxy']

/** Sets the variables for the time of the test, and no others of their kind. */
function setEnvironment (t: Test, values: Record<string, string>): void {
  const before = { ...process.env }
  for (const name of variables) {
    delete process.env[name]
    delete process.env[name.toUpperCase()]
  }
  Object.assign(process.env, values)
  t.teardown(() => {
    for (const name of Object.keys(values)) delete process.env[name]
    Object.assign(process.env, before)
  })
}

for (const httpVersion of [1, 2] as const) {
  for (const secure of [false, true]) {
    for (const secureProxy of [false, true]) {
      t.test(`HTTP/${httpVersion} with an ${secure ? 'https' : 'http'}: URL through an ${secureProxy ? 'https' : 'http'}: proxy`, async (t) => {
        const serverOptions = secure ? { tls: serverCertificate() } : {}
        const relay = httpVersion === 2 ? await fakeHttp2Relay(t, serverOptions) : await fakeRelay(t, serverOptions)
        const proxy = await connectProxy(t, { credentials: 'me:p@ss:word', ...(secureProxy ? { tls: serverCertificate() } : {}) })
        const options = {
          httpVersion,
          proxy: proxy.url('me:p%40ss%3Aword'),
          ...(secure ? { tls: trust } : {}),
          ...(secureProxy ? { proxyTls: trust } : {})
        }
        const connection = await connect(relay.url, options)
        const request = await proxy.requests.next()
        t.equal(request.url, `127.0.0.1:${relay.port}`)
        t.equal(request.headers.host, `127.0.0.1:${relay.port}`)
        const tunnel = await relay.tunnels.next()
        connection.send(Buffer.alloc(2000, 'a'))
        t.same(await tunnel.datagrams.next(), Buffer.alloc(2000, 'a'))
        tunnel.send(Buffer.from('back'))
        const [datagram] = await once(connection, 'message')
        t.equal(String(datagram), 'back')
        const way = await proxy.ways.next()
        connection.close()
        await once(way, 'close')
        t.equal(proxy.requests.all.length, 1)
      })
    }
  }
}

t.test('early data and a PROXY header go through', async (t) => {
  const server = createServer((socket) => {
    t.teardown(() => socket.destroy())
    socket.on('error', () => {})
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const proxy = await connectProxy(t)
  const arrived = once(server, 'connection')
  const tunnel = await connect(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/`, {
    protocol: 'websocket', keyless: true, earlyData: Buffer.from('early'), proxyProtocol: 1, proxy: proxy.url()
  })
  t.teardown(() => tunnel.destroy())
  const [socket] = await arrived as [Socket]
  let text = ''
  for await (const chunk of socket) {
    text += chunk
    if (text.endsWith('early')) break
  }
  const header = decodeProxyHeader(Buffer.from(text))
  t.match(header, { kind: 'header' })
  t.match(text, new RegExp(`^PROXY TCP4 127\\.0\\.0\\.1 127\\.0\\.0\\.1 \\d+ ${proxy.port}\r\nGET / HTTP/1.1\r\n`))
})

t.test('a name is left to the proxy to look up, and the relay’s certificate is checked against it', async (t) => {
  const relay = await fakeRelay(t, { tls: serverCertificate() })
  const proxy = await connectProxy(t, { leadsTo: relay.port })
  const connection = await connect('https://relay.example.com/', { proxy: proxy.url(), tls: trust, servername: 'localhost' })
  t.teardown(() => connection.close())
  t.equal((await proxy.requests.next()).url, 'relay.example.com:443')
  await t.rejects(connect('https://other.example.com/', { proxy: proxy.url(), tls: trust }), { code: 'FST_RELAY_CONNECT', message: /other\.example\.com/ })
  await t.rejects(connect('https://relay.example.com/', { proxy: proxy.url(), servername: 'localhost' }), { code: 'FST_RELAY_CONNECT' })
})

t.test("'env' goes by the environment of the moment, false and nothing do not", async (t) => {
  const relay = await fakeRelay(t)
  const proxy = await connectProxy(t, { credentials: 'me:secret' })
  setEnvironment(t, { http_proxy: `me:secret@127.0.0.1:${proxy.port}` })
  for (const options of [{}, { proxy: false }] as const) {
    (await connect(relay.url, options)).close()
    t.equal(proxy.requests.all.length, 0)
  }
  (await connect(relay.url, { proxy: 'env' })).close()
  t.equal(proxy.requests.all.length, 1)
  process.env['no_proxy'] = '127.0.0.0/8'
  t.teardown(() => { delete process.env['no_proxy'] })
  ;(await connect(relay.url, { proxy: 'env' })).close()
  t.equal(proxy.requests.all.length, 1)
})

t.test('a URL object, and a proxy without a scheme', async (t) => {
  const relay = await fakeRelay(t)
  const proxy = await connectProxy(t)
  for (const each of [new URL(proxy.url()), `127.0.0.1:${proxy.port}`]) (await connect(relay.url, { proxy: each })).close()
  t.equal(proxy.requests.all.length, 2)
})

const closed = 'Content-Length: 0\r\n\r\n'
const refusals: Array<[what: string, answer: string, credentials: string, message: RegExp]> = [
  ['wants credentials', `HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="corp"\r\n${closed}`, '', /: it wants credentials \(407, Basic realm="corp"\): put them into/],
  ['does not accept them', `HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="corp"\r\n${closed}`, 'me:hush', /: it does not accept the user name and password in its URL \(407/],
  ['wants others', `HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n${closed}`, 'me:hush', /\(407, Negotiate, NTLM\), and only Basic is spoken here/],
  ['wants others or Basic', `HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate, Basic realm="x"\r\n${closed}`, '', /put them into/],
  ['does not say what it wants', `HTTP/1.1 407 No\r\n${closed}`, '', /407, without Proxy-Authenticate/],
  ['forbids', `HTTP/1.1 403 Forbidden\r\n${closed}`, 'me:hush', /: it refused CONNECT to 127\.0\.0\.1:\d+ \(403 Forbidden\); many proxies allow port 443 only$/],
  ['cannot connect', `HTTP/1.1 502 Bad\u009b2J Gateway\r\n${closed}`, '', /: it could not connect to 127\.0\.0\.1:\d+ \(502 Bad.*Gateway\)$/],
  ['is busy', `HTTP/1.1 503 Busy\r\n${closed}`, '', /: it could not connect to .* \(503 Busy\)$/],
  ['sends elsewhere', `HTTP/1.1 302 Found\r\nLocation: http://login/\r\n${closed}`, '', /: it refused CONNECT to .* \(302 Found\)/],
  ['speaks no HTTP', 'SSH-2.0-x\r\n', '', /: it gave no answer: Parse Error/],
  ['hangs up', '', '', /: it gave no answer: socket hang up/]
]

for (const httpVersion of [1, 2] as const) {
  t.test(`what a proxy refuses, HTTP/${httpVersion}`, async (t) => {
    for (const [what, answer, credentials, message] of refusals) {
      t.test(what, async (t) => {
        const proxy = await connectProxy(t, { answer })
        const error: Error & { code: string } = await connect('http://127.0.0.1:1/', { httpVersion, proxy: proxy.url(credentials) }).then(() => t.fail('connected'), (error) => error)
        t.equal(error.code, 'FST_RELAY_PROXY')
        t.match(error.message, message)
        t.ok(error.message.startsWith(`Could not connect through the proxy http://127.0.0.1:${proxy.port}: `), 'names the proxy')
        t.notMatch(error.message, /hush|\u009b/)
      })
    }

    t.test('is not there', async (t) => {
      const port = await freePort()
      await t.rejects(connect('http://127.0.0.1:1/', { httpVersion, proxy: `http://me:hush@127.0.0.1:${port}` }), {
        code: 'FST_RELAY_PROXY', message: new RegExp(`^Could not connect through the proxy http://127\\.0\\.0\\.1:${port}: it cannot be reached: connect ECONNREFUSED`)
      })
    })

    t.test('has a certificate that is not trusted', async (t) => {
      const proxy = await connectProxy(t, { tls: serverCertificate() })
      await t.rejects(connect('http://127.0.0.1:1/', { httpVersion, proxy: proxy.url() }), {
        code: 'FST_RELAY_PROXY', message: /^Could not connect through the proxy https:.*: it fails in the TLS handshake: /
      })
    })

    t.test('speaks no TLS', async (t) => {
      const proxy = await connectProxy(t)
      await t.rejects(connect('http://127.0.0.1:1/', { httpVersion, proxy: `https://127.0.0.1:${proxy.port}`, proxyTls: trust }), {
        code: 'FST_RELAY_PROXY', message: /: it fails in the TLS handshake: /
      })
    })

    t.test('the deadline and the signal cover the proxy', async (t) => {
      const connections: Socket[] = []
      const silent = createServer((socket) => {
        socket.on('error', () => {})
        connections.push(socket)
      })
      silent.listen(0, '127.0.0.1')
      await once(silent, 'listening')
      t.teardown(() => silent.close())
      const proxy = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
      await t.rejects(connect('http://127.0.0.1:1/', { httpVersion, proxy, handshakeTimeout: 100 }), {
        code: 'FST_RELAY_PROXY', message: `Could not connect through the proxy ${proxy}: no answer within 100 ms`
      })
      const abort = new AbortController()
      const accepted = once(silent, 'connection')
      const attempt = connect('http://127.0.0.1:1/', { httpVersion, proxy, signal: abort.signal })
      const [socket] = await accepted as [Socket]
      socket.resume()
      const ended = once(socket, 'close')
      abort.abort(new Error('changed my mind'))
      await t.rejects(attempt, { message: 'changed my mind' })
      await ended
    })

    t.test('createConnection may give a promise', async (t) => {
      const relay = httpVersion === 2 ? await fakeHttp2Relay(t) : await fakeRelay(t)
      const createConnection = async () => {
        const socket = connectTcp(relay.port, '127.0.0.1')
        await once(socket, 'connect')
        return socket
      }
      const connection = await connect('http://relay.example.com/', { httpVersion, createConnection })
      connection.close()
      await t.rejects(connect('http://a/', { httpVersion, createConnection: async () => { throw new Error('no modem') } }), {
        code: 'FST_RELAY_CONNECT', message: /createConnection threw: no modem/
      })
      await t.rejects(connect('http://a/', { httpVersion, createConnection: async () => ({}) as Socket }), {
        code: 'FST_RELAY_CLIENT_OPTION', message: /a promise of one/
      })
      const late = new PassThrough()
      let give: () => void = () => {}
      const promise = new Promise<PassThrough>((resolve) => { give = () => resolve(late) })
      await t.rejects(connect('http://a/', { httpVersion, createConnection: () => promise, handshakeTimeout: 20 }), { code: 'FST_RELAY_CONNECT', message: /no answer within 20 ms/ })
      const ended = once(late, 'close')
      give()
      await ended
    })

    t.test('localAddress is where the connection comes from', { skip: process.platform !== 'linux' && 'other systems have one loopback address' }, async (t) => {
      const relay = httpVersion === 2 ? await fakeHttp2Relay(t) : await fakeRelay(t)
      const proxy = await connectProxy(t)
      const options = { httpVersion, localAddress: '127.0.0.9' } as const
      const accepted = once(relay.server, 'connection') as Promise<[Socket]>
      const connection = await connect(relay.url.replace('127.0.0.1', 'localhost'), options)
      t.equal((await accepted)[0].remoteAddress, '127.0.0.9', 'and of its version, where a name has both')
      connection.close()
      const through = await connect(relay.url, { ...options, proxy: proxy.url() })
      t.equal((await proxy.connections.next()).remoteAddress, '127.0.0.9')
      through.close()
      await t.rejects(connect(relay.url, { httpVersion, localAddress: '192.0.2.1' }), { code: 'FST_RELAY_CONNECT', message: /EADDRNOTAVAIL/ })
    })
  })
}

t.test('tunnels over HTTP/2 share a connection through equal proxies only', async (t) => {
  const relay = await fakeHttp2Relay(t)
  const [a, b] = [await connectProxy(t), await connectProxy(t)]
  for (const proxy of [a, a, b]) {
    const connection = await connect(relay.url, { httpVersion: 2, proxy: proxy.url() })
    t.teardown(() => connection.close())
  }
  t.equal(a.requests.all.length, 1)
  t.equal(b.requests.all.length, 1)
})

t.test('a sidecar tries again, and tells of the proxy', async (t) => {
  const proxy = await connectProxy(t, { answer: `HTTP/1.1 403 Forbidden\r\n${closed}` })
  const sidecar = new UdpSidecar({ url: 'https://relay.example.com/', listen: '127.0.0.1:0', proxy: proxy.url('me:hush') })
  t.teardown(() => sidecar.close())
  const retry = once(sidecar, 'retry')
  await sidecar.start()
  const [{ text }] = await retry
  t.equal(text, `Could not connect through the proxy http://127.0.0.1:${proxy.port}: it refused CONNECT to relay.example.com:443 (403 Forbidden)`)
  t.same(sidecar.stats.failed, { FST_RELAY_PROXY: 1 })
})

t.test('options that cannot be used', async (t) => {
  setEnvironment(t, { ALL_PROXY: 'socks5://me:hush@127.0.0.1:1080' })
  const cases: Array<[object, RegExp]> = [
    [{ proxy: 'socks5://me:hush@a' }, /^The option proxy must be an http: or https: URL, 'env' or false: other proxies, SOCKS among them, are not spoken, not 'socks5:\/\/…'$/],
    [{ proxy: 'http://me:hush@:1' }, /^The option proxy must be an http: or https: URL/],
    [{ proxy: 'http://me:hu%sh@a' }, /percent-encoded/],
    [{ proxy: 3128 }, /not 'number'$/],
    [{ proxy: 'env' }, /^The option proxy \(ALL_PROXY in the environment\) must be an http: or https: URL: /],
    [{ proxy: 'http://a', createConnection: () => new PassThrough() }, /option proxy must be absent with createConnection/],
    [{ proxyTls: 'x' }, /option proxyTls must be an object/],
    [{ proxyTls: { ca: 'x', cert: 'nonsense' } }, /option proxyTls must be what Node can make a TLS context of/],
    [{ localAddress: 'eth0' }, /option localAddress must be an IP address of this machine, not 'eth0'/],
    [{ localAddress: '127.0.0.1', createConnection: () => new PassThrough() }, /option localAddress must be absent with createConnection/]
  ]
  for (const [options, message] of cases) {
    const error: Error & { code: string } = await connect('http://a/', options).then(() => t.fail('connected'), (error) => error)
    t.equal(error.code, 'FST_RELAY_CLIENT_OPTION')
    t.match(error.message, message)
    t.notMatch(error.message, /hush/)
  }
})
