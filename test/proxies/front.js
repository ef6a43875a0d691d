import { once } from 'node:events'
import { readFileSync, rmSync } from 'node:fs'
import { connect as connectHttp2 } from 'node:http2'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import Fastify from 'fastify'
import spanzaRelay, { proxyProtocol } from 'fastify-spanza-relay'
import { connect } from 'fastify-spanza-relay/client'
import { connectStream, request } from '../helpers/http2-client.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { fixture, freePort, listening, runProxy, temporaryFolder } from './proxy.js'
import { openOverHttp1, openOverHttp2 } from './web-socket.js'

export const HOST = 'relay.example.com'
const ca = readFileSync(fixture('ca.pem'))
const certificate = { key: readFileSync(fixture('server-key.pem')), cert: readFileSync(fixture('server.pem')) }

/** For tunnels on which nothing is sent, in seconds: as the recipes have it, and to see what it does. */
const LONG_TIMEOUT = 3600
export const SHORT_TIMEOUT = 2
export const IDLE_MS = 5000

/**
 * @typedef {object} ProxyInFront
 * @property {string} name
 * @property {(setting: { port: number, appPort: number, isTls: boolean, timeout: number, folder: string }) => { command: string[], config: string, env?: object }} setUp
 *   `timeout` is in seconds; `command` has `config` where the configuration's path belongs
 * @property {1 | 2} [clientHttp] the version that clients speak to it; default: 1
 * @property {1 | 2} [appHttp] the version that it speaks to the app; default: 1
 * @property {boolean} [appTls] whether it speaks TLS to the app
 * @property {boolean} [allowHTTP1] an app that speaks HTTP/2 over TLS speaks HTTP/1.1 as well
 * @property {boolean} [bothWays] whether a tunnel can be full in both directions at once; default: true
 * @property {boolean} [forwardsTcp] it does not read what it forwards; the app ends TLS
 * @property {boolean} [speaksProxyProtocol] before that it sends a PROXY header
 */

/** An app, and the proxy in front of it; the test's end is theirs. */
export async function startFront (t, proxy, isTls, timeout = LONG_TIMEOUT) {
  const { clientHttp = 1, appHttp = 1, forwardsTcp = false, speaksProxyProtocol = false } = proxy
  const appTls = forwardsTcp ? isTls : proxy.appTls ?? false
  const app = Fastify({
    ...(speaksProxyProtocol && { serverFactory: proxyProtocol({ from: ['127.0.0.1'] }) }),
    ...(!forwardsTcp && { trustProxy: '127.0.0.1' }),
    ...(appHttp === 2 && { http2: true }),
    ...(appTls && { https: { ...certificate, allowHTTP1: proxy.allowHTTP1 } })
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
  const direct = new Way(t, app, {
    port: appPort,
    isTls: appTls,
    httpVersion: appHttp,
    ...(speaksProxyProtocol && { preface: 'PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n' })
  })
  return Object.assign(new Way(t, app, { port, isTls, httpVersion: clientHttp }), { direct })
}

/** A way to the app: the one through the proxy, or the one past it. */
class Way {
  #t
  #app
  #port
  #isTls
  #preface
  #httpVersion

  constructor (t, app, { port, isTls, httpVersion, preface }) {
    this.#t = t
    this.#app = app
    this.#port = port
    this.#isTls = isTls
    this.#preface = preface
    this.#httpVersion = httpVersion
  }

  get app () {
    return this.#app
  }

  /** The origin of a page that the relay's own host has given out. */
  get origin () {
    return `${this.#isTls ? 'https' : 'http'}://${HOST}`
  }

  /** The status of an answer that makes a tunnel. */
  get accepted () {
    return this.#httpVersion === 2 ? 200 : 101
  }

  /** A tunnel of our client. */
  async connect (path, options) {
    return await connect(`${this.origin}${path}`, { httpVersion: this.#httpVersion, createConnection: () => this.transport(), ...options })
  }

  /** A bare tunnel, of a client that knows nothing but bytes. */
  async open (path, { token, early } = {}) {
    const { statusCode, client } = await this.begin(path, { token, early })
    this.#t.equal(statusCode, this.accepted, `${this.accepted} for ${path}`)
    return client
  }

  /**
   * Asks for a bare tunnel.
   * @param early what follows the request at once
   */
  async begin (path, { token = 'spanza', early = '' }) {
    if (this.#httpVersion === 2) {
      const asked = connectStream(await this.session(), path, { protocol: token })
      if (early.length > 0) asked.send(early)
      const client = new RawClient(asked.stream)
      return { statusCode: (await asked.head())[':status'], client }
    }
    const client = await this.#dial()
    await client.send(Buffer.concat([Buffer.from(upgradeText(path, { host: HOST, headers: { Upgrade: token } })), Buffer.from(early)]))
    return { statusCode: (await client.head()).statusCode, client }
  }

  /** Asks for a tunnel; of one that opens, nothing is read. */
  async ask ({ path = '/relay/ask', token = 'spanza', host = HOST, headers = {}, localAddress } = {}) {
    if (this.#httpVersion === 2) {
      const asked = connectStream(await this.session({ localAddress }), path, { protocol: token, headers: { ':authority': host, ...headers } })
      const { ':status': statusCode, ...answered } = await asked.head()
      return { statusCode, headers: answered, body: statusCode === 200 ? '' : String(await asked.readToEnd()) }
    }
    const client = await this.#dial({ localAddress })
    await client.send(upgradeText(path, { host, headers: { Upgrade: token, ...headers } }))
    return await client.answer()
  }

  /** Asks a REST route; the connection is left to the proxy. */
  async get (path) {
    if (this.#httpVersion === 2) return await request(await this.session(), { ':path': path })
    const client = await this.#dial()
    await client.send(requestText(path, { host: HOST }))
    return await client.answer()
  }

  /** A WebSocket. */
  async webSocket (path, options) {
    const webSocket = this.#httpVersion === 2
      ? await openOverHttp2(await this.session(), path, options)
      : await openOverHttp1(`ws://${HOST}${path}`, { createConnection: () => this.transport(), ...options })
    this.#t.teardown(() => webSocket.terminate())
    return webSocket
  }

  /** A connection of HTTP/2, whose settings have come. */
  async session ({ localAddress } = {}) {
    // In megabytes; what a test writes at once counts, and Node opens no stream above it.
    const session = connectHttp2(this.origin, { maxSessionMemory: 100, createConnection: () => this.transport({ localAddress }) })
    session.on('error', () => {})
    this.#t.teardown(() => session.destroy())
    await once(session, 'remoteSettings')
    return session
  }

  /** A connection on which nothing has been said. */
  transport ({ localAddress } = {}) {
    const allowHalfOpen = this.#httpVersion === 1
    const tcp = connectTcp({ port: this.#port, host: '127.0.0.1', localAddress, noDelay: true, allowHalfOpen })
    this.#t.teardown(() => tcp.destroy())
    if (this.#preface !== undefined) tcp.write(this.#preface)
    if (!this.#isTls) return tcp
    const ALPNProtocols = [this.#httpVersion === 2 ? 'h2' : 'http/1.1']
    const secure = connectTls({ socket: tcp, servername: HOST, ca, ALPNProtocols, allowHalfOpen })
    secure.on('error', () => {})
    return secure
  }

  async #dial (options) {
    const socket = this.transport(options)
    const client = new RawClient(socket)
    await once(socket, this.#isTls ? 'secureConnect' : 'connect')
    return client
  }
}
