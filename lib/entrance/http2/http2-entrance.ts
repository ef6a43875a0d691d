import { Http2ServerResponse, type Http2Server, type Http2ServerRequest, type Http2Session, type ServerHttp2Stream } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { limitsStreams } from '../../internals/http2-server-settings.ts'
import { prepareTcp } from '../../util/tcp-socket.ts'

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

/**
 * What a session may have open beside tunnels where the app has not set `maxConcurrentStreams`: as many as RFC 9113, section 6.5.2,
 * recommends at least.
 */
const OTHER_STREAMS = 100
const MAX_SETTING = 2 ** 32 - 1

export interface SessionLimits {
  /** After which Fastify closes a session on which nothing has happened, in milliseconds. */
  sessionTimeout: number
  /** A session that has tunnels is sent a PING this often, in milliseconds. */
  keepaliveInterval: number
  /** After so many milliseconds in which nothing came, such a session is cut. */
  keepaliveTimeout: number
  /** How many tunnels one session may need. */
  maxClientPeers: number
}

interface Session {
  /** Which the session lets nobody touch, and does not destroy while the client keeps its own side open. */
  socket: Socket
  tunnels: number
  /** Whether it has asked for a tunnel, so that what is still open when the app closes may be an answer of ours that nobody takes. */
  hasAsked: boolean
  watch: NodeJS.Timeout | undefined
}

/** The sessions of one HTTP/2 server, and what is announced to them. */
export class Http2Entrance {
  readonly #server: Http2Server
  readonly #claimant: Http2Claimant
  readonly #limits: SessionLimits
  readonly #sessions = new Map<Http2Session, Session>()
  /** Of which the session is about to be told. */
  #latestSocket: Socket | undefined

  constructor (server: Http2Server, claimant: Http2Claimant, limits: SessionLimits) {
    this.#server = server
    this.#claimant = claimant
    this.#limits = limits
    // Before Node's own listeners, which begin the session.
    server.prependListener('connection', this.#onConnection)
    server.prependListener('secureConnection', this.#onSecureConnection)
    server.on('session', this.#onSession)
    server.on('connect', this.#onConnect)
  }

  /** Lets clients know that they may send `:protocol` (RFC 8441, section 3), and how many streams they may have. */
  announce (): void {
    const maxConcurrentStreams = Math.min(this.#limits.maxClientPeers + OTHER_STREAMS, MAX_SETTING)
    this.#server.updateSettings({ enableConnectProtocol: true, ...(limitsStreams(this.#server) ? {} : { maxConcurrentStreams }) })
  }

  /** The socket of a stream's session; undefined if that is gone. */
  socketOf ({ session }: ServerHttp2Stream): Socket | undefined {
    return session === undefined ? undefined : this.#sessions.get(session)?.socket
  }

  /** Notes that a stream is a tunnel: a session is not idle while it has one, however silent that is. */
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
   * Takes no new streams, and ends each session when it has none left. To be called when the tunnels are closed: GOAWAY would overtake
   * the end of a stream.
   * @param grace milliseconds after which the sessions that have asked for tunnels are cut
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
   * Asks the other side for a sign of life by PING, and cuts the session when none comes: TCP does not tell of a client that has vanished,
   * and Node 20 tells nobody that it has ended a session because of a connection error, and reads no more of it.
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
        // The answer shows in what is read.
        session.ping(() => {})
      }
    }, keepaliveInterval).unref()
  }

  /** A client that keeps its side of a connection open whose session has ended is given the time of an idle session. */
  #limitRest (socket: Socket): void {
    const { sessionTimeout } = this.#limits
    if (socket.destroyed || sessionTimeout === 0) return
    const timer = setTimeout(() => socket.destroy(), sessionTimeout).unref()
    socket.once('close', () => clearTimeout(timer))
  }

  /** Before there is a session: it does not let anybody touch its socket. */
  readonly #onConnection = (socket: Socket): void => {
    prepareTcp(socket)
    this.#begin(socket)
  }

  readonly #onSecureConnection = (socket: Socket): void => this.#begin(socket)

  #begin (socket: Socket): void {
    // Asked for now, Node keeps it; when the first request comes, a client that has reset the connection has no address any more.
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
    // With `allowHTTP1`, a CONNECT of HTTP/1.1 comes here, too, with its socket.
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
    // It has no path (RFC 9113, section 8.5), and Fastify cannot route it.
    response.statusCode = 405
    response.setHeader('allow', 'GET')
    response.end()
  }
}

function keepAddress (_address: string | undefined): void {}
