import type { OutgoingHttpHeaders } from 'node:http'
import { constants, type Http2Server, type Http2ServerRequest, Http2ServerResponse, type Http2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { errors } from '../errors.ts'
import { failOnReset, isFinished, resetStream } from '../http2-stream.ts'
import { prepareTcp } from '../tcp-socket.ts'
import { Handshake, type Refusal, type ReplyHeaders, type WebSocketOutcome } from './handshake.ts'
import { agreeOnDeflate, webSocketOn, type WebSocketSettings } from './websocket.ts'

/** The entrance for extended CONNECT over HTTP/2 (RFC 8441): from a claimed request to a tunnel, which is one stream. */

/** A request with the pseudo-header `:protocol` between its arrival and its answer. */
export class Http2Handshake extends Handshake {
  override readonly httpVersion = '2.0'
  declare readonly request: Http2ServerRequest
  protected declare response: Http2ServerResponse
  readonly #stream: ServerHttp2Stream

  /**
   * @param onSettled called once: with undefined when the tunnel is open, else with the refusal
   */
  constructor (request: Http2ServerRequest, response: Http2ServerResponse, onSettled: (refusal: Refusal | undefined) => void) {
    super(request, onSettled)
    this.response = response
    this.#stream = request.stream
    // Node passes the stream's errors on to the request; met by no listener, one would end the process.
    for (const emitter of [this.#stream, request, response]) emitter.on('error', () => {})
    failOnReset(this.#stream)
    // Of the response, Node says that it has finished also where the client has reset the stream.
    // Before the response tells that it has ended.
    this.#stream.prependListener('close', this.#onClose)
  }

  override get asked (): string | undefined {
    return this.request.headers[':protocol'] as string | undefined
  }

  /** Over HTTP/2 there is no key (RFC 8441, section 5). */
  override get asksForWebSocket (): boolean {
    return true
  }

  override accept (_protocol: string, answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): ServerHttp2Stream {
    const headers = this.headersBesides(answerHeaders, hookHeaders)
    // A hook may have given another, which would be that of `onResponse`.
    this.response.statusCode = 200
    this.#stream.respond({ ...lowerCased(headers), ':status': 200 }, { endStream: false })
    this.opened()
    this.#stream.off('close', this.#onClose)
    return this.#stream
  }

  override acceptWebSocket (settings: WebSocketSettings, hookHeaders: ReplyHeaders, { onOpen }: WebSocketOutcome): void {
    const agreed = agreeOnDeflate(settings, this.request.headers)
    const tunnel = this.accept('websocket', {
      ...(settings.protocol === undefined ? {} : { 'sec-websocket-protocol': settings.protocol }),
      ...(agreed === undefined ? {} : { 'sec-websocket-extensions': agreed.header })
    }, hookHeaders)
    onOpen({ webSocket: webSocketOn(tunnel, settings, agreed?.deflate), tunnel })
  }

  protected override get isWritable (): boolean {
    return this.#stream.writable
  }

  protected override respond (): Http2ServerResponse {
    return this.response
  }

  protected override writeHead (statusCode: number, headers: OutgoingHttpHeaders): void {
    this.response.writeHead(statusCode, headers)
  }

  protected override destroy (): void {
    resetStream(this.#stream, constants.NGHTTP2_CANCEL)
  }

  readonly #onClose = (): void => {
    if (this.isSettled) return
    if (isFinished(this.#stream)) return this.answered()
    if (!this.response.headersSent) this.response.statusCode = 499
    this.refused(499, new errors.FST_RELAY_CLIENT_GONE())
  }
}

/** Names are lower-case in HTTP/2, and Node takes one that is given in two spellings for two. */
function lowerCased (headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
}

/** Takes the requests for tunnels of one server. */
export interface Http2Claimant {
  claimsConnect: (request: Http2ServerRequest) => boolean
  connect: (request: Http2ServerRequest, response: Http2ServerResponse) => void
  /** A CONNECT that is nobody's: it is answered as Fastify answers any request. */
  serve: (request: Http2ServerRequest, response: Http2ServerResponse) => void
}

/**
 * What a client may send on one session before it hears that it was taken. A stream that is not read does not count: Node
 * gives that part back at once, so that one stream cannot starve the others.
 */
const SESSION_WINDOW = 16 * 1024 * 1024

/** The sessions of one HTTP/2 server, and what is announced to them. */
export class Http2Entrance {
  readonly #server: Http2Server
  readonly #claimant: Http2Claimant
  readonly #sessionTimeout: number
  readonly #sessions = new Set<Http2Session>()
  /** Each session's socket, which a session lets nobody touch, and does not destroy while the client keeps its own side open. */
  readonly #sockets = new WeakMap<Http2Session, Socket>()
  /** Of which the session is about to be told. */
  #latestSocket: Socket | undefined
  /** Tunnels of each session that has some. */
  readonly #tunnels = new Map<Http2Session, number>()

  /** @param sessionTimeout after which Fastify closes a session on which nothing has happened, in milliseconds */
  constructor (server: Http2Server, claimant: Http2Claimant, sessionTimeout: number) {
    this.#server = server
    this.#claimant = claimant
    this.#sessionTimeout = sessionTimeout
    // Before Node's own listeners, which begin the session.
    server.prependListener('connection', this.#onConnection)
    server.prependListener('secureConnection', this.#onSecureConnection)
    server.on('session', this.#onSession)
    server.on('connect', this.#onConnect)
  }

  /** Lets clients know that they may send `:protocol` (RFC 8441, section 3). */
  announce (): void {
    this.#server.updateSettings({ enableConnectProtocol: true })
  }

  /** Notes that a stream is a tunnel: a session is not idle while it has one, however silent that is. */
  hold (stream: ServerHttp2Stream): void {
    const { session } = stream
    if (session === undefined) return
    const tunnels = this.#tunnels.get(session) ?? 0
    if (tunnels === 0) session.setTimeout(0)
    this.#tunnels.set(session, tunnels + 1)
    stream.once('close', () => this.#release(session))
  }

  /**
   * Takes no new streams, and ends each session when it has none left. To be called when the tunnels are closed: GOAWAY would overtake
   * the end of a stream.
   * @param grace milliseconds after which the sessions that have had tunnels are cut
   */
  close (grace: number): void {
    this.#server.off('connection', this.#onConnection).off('secureConnection', this.#onSecureConnection)
    this.#server.off('session', this.#onSession).off('connect', this.#onConnect)
    for (const session of this.#sessions) {
      session.close()
      if (!this.#tunnels.has(session)) continue
      const socket = this.#sockets.get(session)!
      const timer = setTimeout(() => {
        session.destroy()
        socket.destroy()
      }, grace)
      socket.once('close', () => clearTimeout(timer))
    }
  }

  #release (session: Http2Session): void {
    const tunnels = this.#tunnels.get(session)! - 1
    this.#tunnels.set(session, tunnels)
    if (tunnels === 0 && !session.destroyed) session.setTimeout(this.#sessionTimeout)
  }

  /** Before there is a session: it does not let anybody touch its socket. */
  readonly #onConnection = (socket: Socket): void => {
    prepareTcp(socket)
    this.#latestSocket = socket
  }

  readonly #onSecureConnection = (socket: Socket): void => {
    this.#latestSocket = socket
  }

  readonly #onSession = (session: Http2Session): void => {
    this.#sessions.add(session)
    this.#sockets.set(session, this.#latestSocket!)
    session.once('close', () => {
      this.#sessions.delete(session)
      this.#tunnels.delete(session)
    })
    session.setLocalWindowSize(SESSION_WINDOW)
  }

  readonly #onConnect = (request: unknown, response: unknown): void => {
    const isOurs = this.#server.listenerCount('connect') === 1
    // With `allowHTTP1`, a CONNECT of HTTP/1.1 comes here, too, with its socket.
    if (!(response instanceof Http2ServerResponse)) {
      if (isOurs) (response as Duplex).destroy()
      return
    }
    const claimed = request as Http2ServerRequest
    const { headers } = claimed
    claimed.on('error', () => {})
    const isExtended = headers[':protocol'] !== undefined && headers[':path'] !== undefined
    if (isExtended && this.#claimant.claimsConnect(claimed)) return this.#claimant.connect(claimed, response)
    if (!isOurs) return
    if (isExtended) return this.#claimant.serve(claimed, response)
    // It has no path (RFC 9113, section 8.5), and Fastify cannot route it.
    response.statusCode = 405
    response.setHeader('allow', 'GET')
    response.end()
  }
}
