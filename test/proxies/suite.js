import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import Fastify from 'fastify'
import spanzaRelay, { proxyProtocol } from 'fastify-spanza-relay'
import { connect } from 'fastify-spanza-relay/client'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { until } from '../helpers/tunnel.ts'
import { fixture, freePort, listening, runProxy, temporaryFolder } from './proxy.js'

// What a tunnel must find behind any proxy. Where proxies differ, each one's table says what it does.

const HOST = 'relay.example.com'
const MANY = 10 * 1024 * 1024
const EARLY = 64 * 1024
const TOKENS = ['spanza', 'UoTLV/1', 'websocket']
const ca = readFileSync(fixture('ca.pem'))

/** For tunnels on which nothing is sent, in seconds: as the README has it, and to see what it does. */
const LONG_TIMEOUT = 3600
const SHORT_TIMEOUT = 2
const IDLE_MS = 5000

/**
 * @typedef {object} ProxyUnderTest
 * @property {string} name
 * @property {(setting: { port: number, appPort: number, isTls: boolean, timeout: number, folder: string }) => { command: string[], config: string, env?: object }} setUp
 *   `timeout` is in seconds; `command` has `config` where the configuration's path belongs
 * @property {string} [skip] why it cannot be tested here
 * @property {boolean} [speaksProxyProtocol] it forwards TCP, with a PROXY header; the app ends TLS
 * @property {Record<string, number>} [refuses] upgrade tokens that do not pass, and what is answered instead
 * @property {boolean} earlyData whether what follows the request at once arrives
 * @property {{ client: boolean, other: boolean }} halfClose whether bytes still come to the client when it has ended its
 *   stream, and from it when the other side has
 * @property {boolean} cutsIdle whether its timeout ends a tunnel on which nothing is sent
 * @property {number | undefined} [strangersStatus] what it answers itself to a host name that it does not serve
 */

/** Tests one proxy, with and without TLS. */
export function testProxy (t, proxy) {
  for (const isTls of [false, true]) {
    const { skip = false } = proxy
    t.test(`${proxy.name}, ${isTls ? 'TLS' : 'plain'}`, { skip }, async (t) => await testFront(t, proxy, isTls))
  }
}

/** Tests which upgrade tokens a proxy lets through. */
export function testTokens (t, proxy, isTls) {
  t.test(`upgrade tokens through ${proxy.name}`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    const { refuses = {} } = proxy
    for (const token of TOKENS) {
      const { statusCode, headers } = await front.ask({ headers: { Upgrade: token } })
      t.equal(statusCode, refuses[token] ?? 101, `${token} ${token in refuses ? 'does not pass' : 'passes'}`)
      if (!(token in refuses)) t.equal(headers.upgrade, token)
    }
    t.equal(front.app.relayHub.stats().attached, TOKENS.length - Object.keys(refuses).length)
  })
}

async function testFront (t, proxy, isTls) {
  testTokens(t, proxy, isTls)

  t.test('our client: datagrams in wg, and a bare stream', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const [a, b] = [await front.connect('/relay/wg'), await front.connect('/relay/wg')]
    for (const [from, to] of [[a, b], [b, a]]) {
      const datagram = randomBytes(1300)
      const received = once(to, 'message')
      from.send(datagram)
      t.ok((await received)[0].equals(datagram))
    }
    t.equal(front.app.relayHub.peers().every(({ framing }) => framing === 'wg'), true)

    const stream = await front.connect('/relay/raw', { framings: 'raw' })
    const other = await front.open('/relay/raw')
    stream.write('there')
    t.equal(String(await other.read(5)), 'there')
    await other.send('back')
    t.equal(String((await once(stream, 'data'))[0]), 'back')
    stream.end()
  })

  t.test('UoTLV/1, with a client of ours as the other peer', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const guard = await front.open('/relay/x', { headers: { Upgrade: 'UoTLV/1' } })
    const other = await front.direct.connect('/relay/x')
    const datagram = randomBytes(1300)
    const received = once(other, 'message')
    await guard.send(Buffer.concat([Buffer.from([1300 >> 8, 1300 & 255]), datagram]))
    t.ok((await received)[0].equals(datagram))
    other.send(datagram)
    t.ok((await guard.read(1302)).subarray(2).equals(datagram))
  })

  t.test('10 MB in both directions at once', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const ends = [await front.connect('/relay/x', { framings: 'raw' }), await front.connect('/relay/x', { framings: 'raw' })]
    const sent = ends.map((end) => {
      const bytes = randomBytes(MANY)
      end.write(bytes)
      return sha256([bytes])
    })
    const received = await Promise.all(ends.map(async (end) => sha256(await chunksOf(end, MANY))))
    t.same(received, sent.reverse())
  })

  t.test(`early data ${proxy.earlyData ? 'arrives' : 'is lost'}`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    for (const token of ['spanza', 'websocket'].filter((token) => proxy.refuses?.[token] === undefined)) {
      for (const early of [Buffer.from('early'), Buffer.alloc(EARLY, 'early')]) {
        const other = await front.direct.open(`/relay/${token}${early.length}`)
        const client = await front.dial()
        await client.send(Buffer.concat([Buffer.from(upgradeText(`/relay/${token}${early.length}`, { host: HOST, headers: { Upgrade: token } })), early]))
        t.equal((await client.head()).statusCode, 101)
        await client.send('later')
        if (proxy.earlyData) t.ok((await other.read(early.length + 5)).equals(Buffer.concat([early, Buffer.from('later')])), `${token}, ${early.length} bytes`)
        else if (early.length === 5) t.equal(String(await other.read(5)), 'later', `${token}: only what comes behind the 101 arrives`)
      }
    }
  })

  t.test("the client's address and protocol are right, whatever it says about them", async (t) => {
    const front = await startFront(t, proxy, isTls)
    const forged = { 'X-Forwarded-For': ['203.0.113.9', '127.0.0.1'], 'X-Forwarded-Proto': 'gopher', Forwarded: 'for=203.0.113.9;proto=gopher', 'X-Real-IP': '203.0.113.9' }
    for (const localAddress of ['127.0.0.21', '127.0.0.22']) {
      for (const headers of [{}, forged]) {
        const client = await front.dial({ localAddress })
        const { headers: answered } = await client.upgrade(t, `/relay/${localAddress}`, { host: HOST, headers })
        t.equal(answered['x-seen-ip'], localAddress, 'request.ip')
        t.equal(answered['x-seen-protocol'], isTls ? 'https' : 'http', 'request.protocol')
      }
    }
    t.same(front.app.relayHub.peers().map(({ address }) => address), ['127.0.0.21', '127.0.0.21', '127.0.0.22', '127.0.0.22'])
  })

  t.test('the Host check sees the name that the client asked for', async (t) => {
    const front = await startFront(t, proxy, isTls)
    t.equal((await front.ask()).statusCode, 101)
    t.equal((await front.ask({ host: `${HOST}:8443` })).statusCode, 101, 'with a port')
    for (const headers of [{}, { 'X-Forwarded-Host': HOST }]) {
      const { statusCode, body } = await front.ask({ host: 'elsewhere.example.com', headers })
      t.equal(statusCode, proxy.strangersStatus ?? 421)
      if (proxy.strangersStatus === undefined) t.equal(JSON.parse(body).code, 'FST_RELAY_HOST_NOT_ALLOWED')
    }
    t.equal(front.app.relayHub.stats().attached, 2)
  })

  t.test('a refusal passes through, and REST beside it', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const { statusCode, headers, body } = await front.ask({ headers: { 'X-Refuse': '401' } })
    t.equal(statusCode, 401)
    t.match(headers['content-type'], /^application\/json/)
    t.match(JSON.parse(body), { statusCode: 401, code: 'NOT_YOU', message: 'unknown token' })
    await t.rejects(front.connect('/relay/x', { headers: { 'X-Refuse': '401' } }), { code: 'FST_RELAY_REFUSED', statusCode: 401 })

    const client = await front.dial()
    await client.send(requestText('/relay/health', { host: HOST, headers: { Connection: 'close' } }))
    const answer = await client.answer()
    t.equal(answer.statusCode, 200)
  })

  t.test('half-close', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const bulk = randomBytes(1024 * 1024)

    const client = await front.open('/relay/client')
    const other = await front.direct.open('/relay/client')
    client.socket.end(bulk)
    t.ok((await other.readToEnd()).equals(bulk), 'what the client sent before its end arrives, and its end')
    other.socket.end('answer')
    t.equal(String(await client.readToEnd()), proxy.halfClose.client ? 'answer' : '', `the answer to a client that has ended its stream ${proxy.halfClose.client ? 'arrives' : 'is lost'}`)

    const client2 = await front.open('/relay/other')
    const other2 = await front.direct.open('/relay/other')
    other2.socket.end(bulk)
    t.ok((await client2.readToEnd()).equals(bulk), 'what the other side sent before its end arrives, and its end')
    client2.socket.end('answer')
    t.equal(String(await other2.readToEnd()), proxy.halfClose.other ? 'answer' : '', `the client's answer to it ${proxy.halfClose.other ? 'arrives' : 'is lost'}`)
    await until(() => front.app.relayHub.stats().peers === 0)
  })

  t.test(`an idle tunnel lives on by the relay's keepalives; a silent one ${proxy.cutsIdle ? 'is cut' : 'lives on as well'}`, async (t) => {
    const front = await startFront(t, proxy, isTls, SHORT_TIMEOUT)
    // A client that only answers the relay's pings, as any client of `wg` does.
    const kept = [await front.connect('/relay/wg'), await front.connect('/relay/wg')]
    const begun = Date.now()
    const silent = await front.open('/relay/raw')
    if (proxy.cutsIdle) {
      await silent.readToEnd()
      await (await front.open('/relay/raw')).readToEnd()
    }
    await new Promise((resolve) => setTimeout(resolve, begun + IDLE_MS - Date.now()))
    const datagram = randomBytes(1300)
    const received = once(kept[1], 'message')
    kept[0].send(datagram)
    t.ok((await received)[0].equals(datagram))
    if (!proxy.cutsIdle) {
      const other = await front.direct.open('/relay/raw')
      await other.send('hello')
      t.equal(String(await silent.read(5)), 'hello')
    }
  })

  t.test('the app closes in order while tunnels are open', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const connection = await front.connect('/relay/wg')
    const pair = [await front.open('/relay/raw'), await front.open('/relay/raw')]
    const health = await front.dial()
    await health.send(requestText('/relay/health', { host: HOST }))
    t.equal((await health.answer()).statusCode, 200, 'and a connection that the proxy may keep')
    const closed = once(connection, 'close')
    await front.app.close()
    t.match(await closed, [{ reason: 'shutdown' }], 'the client is told')
    await Promise.all(pair.map(async (end) => await end.readToEnd()))
    t.equal(front.app.relayHub.stats().peers, 0)
  })
}

/** An app, and the proxy in front of it; the test's end is theirs. */
async function startFront (t, proxy, isTls, timeout = LONG_TIMEOUT) {
  const app = Fastify({
    ...(proxy.speaksProxyProtocol ? { serverFactory: proxyProtocol({ from: ['127.0.0.1'] }) } : { trustProxy: '127.0.0.1' }),
    ...(proxy.speaksProxyProtocol && isTls ? { https: { key: readFileSync(fixture('server-key.pem')), cert: readFileSync(fixture('server.pem')) } } : {})
  })
  await app.register(spanzaRelay, { keepaliveInterval: 500, clientHandshakesPerSecond: 1000 })
  app.get('/relay/health', async () => ({ ok: true }))
  app.relay('/relay/:name', {
    hosts: [HOST],
    onRequest: async (request, reply) => {
      if (request.headers['x-refuse'] === '401') throw Object.assign(new Error('unknown token'), { statusCode: 401, code: 'NOT_YOU' })
      reply.headers({ 'X-Seen-IP': request.ip, 'X-Seen-Protocol': request.protocol })
    }
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const folder = temporaryFolder()
  const port = await freePort()
  const appPort = app.server.address().port
  const program = runProxy({ ...proxy.setUp({ port, appPort, isTls, timeout, folder }), folder })
  t.teardown(async () => {
    // In this order: a proxy may wait for its tunnels to end.
    await app.close()
    await program.stop()
    rmSync(folder, { recursive: true, force: true })
  })
  await listening(program, port)

  // Without the proxy, for the other end of a tunnel: it must not be the proxy's own other end that a test sees.
  const direct = proxy.speaksProxyProtocol
    ? new Way(t, app, { port: appPort, isTls, preface: 'PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n' })
    : new Way(t, app, { port: appPort, isTls: false })
  return Object.assign(new Way(t, app, { port, isTls }), { direct })
}

/** A way to the app: the one through the proxy, or the one past it. */
class Way {
  #t
  #app
  #port
  #isTls
  #preface

  constructor (t, app, { port, isTls, preface }) {
    this.#t = t
    this.#app = app
    this.#port = port
    this.#isTls = isTls
    this.#preface = preface
  }

  get app () {
    return this.#app
  }

  /** A tunnel of our client. */
  async connect (path, options) {
    return await connect(`http://${HOST}${path}`, { createConnection: () => this.#transport(), ...options })
  }

  async dial (options) {
    const socket = this.#transport(options)
    const client = new RawClient(socket)
    await once(socket, this.#isTls ? 'secureConnect' : 'connect')
    return client
  }

  /** A bare tunnel, of a client that knows nothing but bytes. */
  async open (path, parts) {
    const client = await this.dial()
    await client.upgrade(this.#t, path, { host: HOST, ...parts })
    return client
  }

  /** Asks for a tunnel. */
  async ask (parts) {
    const client = await this.dial()
    await client.send(upgradeText('/relay/ask', { host: HOST, ...parts }))
    return await client.answer()
  }

  #transport ({ localAddress } = {}) {
    const tcp = connectTcp({ port: this.#port, host: '127.0.0.1', localAddress, noDelay: true, allowHalfOpen: true })
    this.#t.teardown(() => tcp.destroy())
    if (this.#preface !== undefined) tcp.write(this.#preface)
    if (!this.#isTls) return tcp
    const secure = connectTls({ socket: tcp, servername: HOST, ca, ALPNProtocols: ['http/1.1'], allowHalfOpen: true })
    secure.on('error', () => {})
    return secure
  }
}

/** What comes out of a stream, until it is so many bytes. */
async function chunksOf (stream, length) {
  const chunks = []
  let missing = length
  for await (const chunk of stream) {
    chunks.push(chunk)
    missing -= chunk.length
    if (missing <= 0) break
  }
  return chunks
}

function sha256 (chunks) {
  const hash = createHash('sha256')
  for (const chunk of chunks) hash.update(chunk)
  return hash.digest('hex')
}
