import { Http2ServerResponse, type Http2Server, type Http2ServerRequest, type Http2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { limitsStreams } from '../../internals/http2-server-settings.ts'
import { prepareTcp } from '../../util/tcp-socket.ts'

/** Handles the CONNECT requests of one server. */
export interface Http2Claimant {
  claimsConnect: (request: Http2ServerRequest) => boolean
  connect: (request: Http2ServerRequest, response: Http2ServerResponse) => void
  /** Passes an unclaimed extended CONNECT to Fastify, which answers it like any other request. */
  serve: (request: Http2ServerRequest, response: Http2ServerResponse) => void
}

/**
 * The receive window of one session, in bytes: what a client may send before the relay acknowledges it. Unread data of a
 * paused stream does not count. Node returns that part at once, so that one stream cannot starve the others.
 */
const SESSION_WINDOW = 16 * 1024 * 1024

/**
 * How many streams a session may have open beside its tunnels, unless the app has set `maxConcurrentStreams`. The value is the
 * minimum that RFC 9113, section 6.5.2, recommends.
 */
const OTHER_STREAMS = 100
const MAX_SETTING = 2 ** 32 - 1

export interface SessionLimits {
  /** Fastify closes an idle session after this many milliseconds. */
  sessionTimeout: number
  /** Interval of the keepalive PINGs on a session with tunnels, in milliseconds. */
  keepaliveInterval: number
  /** A session with tunnels is cut after this many milliseconds without received data. */
  keepaliveTimeout: number
  /** The most tunnels that one session may need. */
  maxClientPeers: number
}

interface Session {
  /** The raw socket. Node hides it behind the session, and does not destroy it while the client keeps its side open. */
  socket: Socket
  tunnels: number
  /** True if the session has asked for a tunnel. When the app closes, its open streams may be relay answers that the client does not read. */
  hasAsked: boolean
  watch: NodeJS.Timeout | undefined
}

/** Tracks the sessions of one HTTP/2 server, and announces the server's settings to them. */
export class Http2Entrance {
  readonly #server: Http2Server
  readonly #claimant: Http2Claimant
  readonly #limits: SessionLimits
  readonly #sessions = new Map<Http2Session, Session>()
  /** The socket of the session that Node is about to announce. */
  #latestSocket: Socket | undefined

  constructor (server: Http2Server, claimant: Http2Claimant, limits: SessionLimits) {
    this.#server = server
    this.#claimant = claimant
    this.#limits = limits
    // Run before Node's own listeners, which create the session.
    server.prependListener('connection', this.#onConnection)
    server.prependListener('secureConnection', this.#onSecureConnection)
    server.on('session', this.#onSession)
    server.on('connect', this.#onConnect)
  }

  /** Tells clients that they may send `:protocol` (RFC 8441, section 3), and how many streams they may open. */
  announce (): void {
    const maxConcurrentStreams = Math.min(this.#limits.maxClientPeers + OTHER_STREAMS, MAX_SETTING)
    this.#server.updateSettings({ enableConnectProtocol: true, ...(limitsStreams(this.#server) ? {} : { maxConcurrentStreams }) })
  }

  /** The socket of a stream's session; undefined if the session has ended. */
  socketOf ({ session }: ServerHttp2Stream): Socket | undefined {
    return session === undefined ? undefined : this.#sessions.get(session)?.socket
  }

  /** Marks a stream as a tunnel. A session with a tunnel never counts as idle, even if the tunnel is silent. */
  hold (stream: ServerHttp2Stream): void {
    const { session } = stream
    const known = session && this.#sessions.get(session)
    if (session === undefined || known === undefined) return
    if (known.tunnels === 0) {
      session.setTimeout(0)
      known.watch = this.#watch(session, known.socket)
    }
    known.tunnels++
    stream.once('close', () => this.#release(session, known))
  }

  /**
   * Stops accepting streams, and ends each session after its last stream. Call this after the tunnels are closed: GOAWAY would
   * overtake the end of a stream.
   * @param grace milliseconds after which sessions that have asked for a tunnel are cut
   */
  close (grace: number): void {
    this.#server.off('connection', this.#onConnection).off('secureConnection', this.#onSecureConnection)
    this.#server.off('session', this.#onSession).off('connect', this.#onConnect)
    for (const [session, { socket, hasAsked }] of this.#sessions) {
      session.close()
      if (!hasAsked) continue
      const timer = setTimeout(() => {
        session.destroy()
        socket.destroy()
      }, grace)
      socket.once('close', () => clearTimeout(timer))
    }
  }

  #release (session: Http2Session, known: Session): void {
    if (--known.tunnels > 0) return
    clearInterval(known.watch)
    if (!session.destroyed) session.setTimeout(this.#limits.sessionTimeout)
  }

  /**
   * Sends keepalive PINGs, and cuts the session if the peer stays silent. TCP does not report a client that has vanished. Node 20
   * stops reading a session after a connection error, without any event.
   */
  #watch (session: Http2Session, socket: Socket): NodeJS.Timeout {
    const { keepaliveInterval, keepaliveTimeout } = this.#limits
    let bytesRead = socket.bytesRead
    let heardAt = performance.now()
    return setInterval(() => {
      const now = performance.now()
      if (socket.bytesRead !== bytesRead) {
        bytesRead = socket.bytesRead
        heardAt = now
      }
      if (now - heardAt > keepaliveTimeout) {
        session.destroy(new Error(`no sign of life for ${keepaliveTimeout} ms, no answer to PING`))
        socket.destroy()
      } else if (!session.destroyed) {
        // `bytesRead` shows the answer.
        session.ping(() => {})
      }
    }, keepaliveInterval).unref()
  }

  /** Cuts a connection that the client keeps open after its session has ended, after `sessionTimeout` milliseconds. */
  #limitRest (socket: Socket): void {
    const { sessionTimeout } = this.#limits
    if (socket.destroyed || sessionTimeout === 0) return
    const timer = setTimeout(() => socket.destroy(), sessionTimeout).unref()
    socket.once('close', () => clearTimeout(timer))
  }

  /** Prepares the socket before its session exists, because the session hides it. */
  readonly #onConnection = (socket: Socket): void => {
    prepareTcp(socket)
    this.#begin(socket)
  }

  readonly #onSecureConnection = (socket: Socket): void => this.#begin(socket)

  #begin (socket: Socket): void {
    // Node caches the address at the first read. Once the client has reset the connection, it is no longer available.
    keepAddress(socket.remoteAddress)
    this.#latestSocket = socket
  }

  readonly #onSession = (session: Http2Session): void => {
    const known: Session = { socket: this.#latestSocket!, tunnels: 0, hasAsked: false, watch: undefined }
    this.#sessions.set(session, known)
    session.once('close', () => {
      this.#sessions.delete(session)
      clearInterval(known.watch)
      this.#limitRest(known.socket)
    })
    session.setLocalWindowSize(SESSION_WINDOW)
  }

  readonly #onConnect = (request: unknown, response: unknown): void => {
    const isOurs = this.#server.listenerCount('connect') === 1
    // With `allowHTTP1`, Node also emits this for an HTTP/1.1 CONNECT, with its socket as second argument.
    if (!(response instanceof Http2ServerResponse)) {
      if (isOurs) (response as Duplex).destroy()
      return
    }
    const claimed = request as Http2ServerRequest
    const { headers } = claimed
    claimed.on('error', () => {})
    const isExtended = headers[':protocol'] !== undefined && headers[':path'] !== undefined
    if (isExtended && this.#claimant.claimsConnect(claimed)) {
      const known = this.#sessions.get(claimed.stream.session!)
      if (known !== undefined) known.hasAsked = true
      return this.#claimant.connect(claimed, response)
    }
    if (!isOurs) return
    if (isExtended) return this.#claimant.serve(claimed, response)
    // A plain CONNECT has no path (RFC 9113, section 8.5), so Fastify cannot route it.
    response.statusCode = 405
    response.setHeader('allow', 'GET')
    response.end()
  }
}

function keepAddress (_address: string | undefined): void {}
