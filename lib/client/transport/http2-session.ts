import { once } from 'node:events'
import { connect as connectHttp2, constants, type ClientHttp2Session, type OutgoingHttpHeaders, type Settings } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { isDeepStrictEqual } from 'node:util'
import { errors, isRelayError } from '../../errors.ts'
import { errorCodeName } from '../../tunnel/http2/http2-stream.ts'
import { httpVersions } from '../../util/http-version.ts'
import { rememberAddress } from './address-memory.ts'
import { connectError } from '../connect-error.ts'
import { describeError } from '../describe-error.ts'
import { Http2Tunnel } from './http2-tunnel.ts'
import { Liveness } from '../connection/liveness.ts'
import { watchAddress } from '../connection/network-watch.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'
import { openTransport } from './transport.ts'
import { describeFault } from './transport-fault.ts'

/**
 * How much a tunnel that is not read from can make this side hold, in bytes. It also limits what is in flight: to 300 Mbit/s
 * over a round trip of 100 ms.
 */
const STREAM_WINDOW = 4 * 1024 * 1024
/**
 * How much is in flight for all tunnels of a connection together, in bytes. It does not limit memory: Node opens the window
 * again as bytes arrive, read or not, so a tunnel that is not read from does not block others.
 */
const CONNECTION_WINDOW = 16 * 1024 * 1024
/** How long the other side may take to close a connection without tunnels, in milliseconds. */
const CLOSE_MS = 1000

/** The sessions that take further tunnels. */
const sessions = new Set<RelaySession>()

/** An existing or new session for tunnels of this plan. The caller counts as a user until it calls `leave()`. */
export function joinSession (plan: ConnectPlan): RelaySession {
  const key = keyOf(plan)
  for (const session of sessions) {
    if (session.takes(key)) return session.join()
  }
  const session = new RelaySession(plan, key)
  sessions.add(session)
  return session.join()
}

/** What must be equal for tunnels to share a connection: its destination, its TLS settings, and how it is made. */
function keyOf ({
  secure, hostname, port, host, servername, tls, createConnection, proxy, proxyTls, localAddress, proxyProtocol, keepaliveInterval,
  keepaliveTimeout
}: ConnectPlan) {
  return {
    secure,
    hostname,
    port,
    host,
    servername,
    tls,
    createConnection,
    proxy,
    proxyTls,
    localAddress,
    proxyProtocol,
    keepaliveInterval,
    keepaliveTimeout
  }
}

/** An HTTP/2 connection to a relay. It lives as long as there are tunnels on it, or attempts to open one. */
export class RelaySession {
  /**
   * Resolves when tunnels can be asked for.
   * @throws FST_RELAY_CONNECT, FST_RELAY_HTTP2, FST_RELAY_CLIENT_OPTION
   */
  readonly opened: Promise<void>
  readonly #key: unknown
  readonly #opening = new AbortController()
  #transport: Duplex | undefined
  #session: ClientHttp2Session | undefined
  #liveness: Liveness | undefined
  #unwatch: (() => void) | undefined
  #goaway: string | undefined
  #isOpen = false
  #users = 0
  #streams = 0
  #maxStreams = Infinity
  #isClosing = false

  constructor (plan: ConnectPlan, key: unknown) {
    this.#key = key
    this.opened = this.#open(plan)
    // Callers that wait get the rejection as well; there may be none left.
    this.opened.catch(() => this.#close())
  }

  get isOpen (): boolean {
    return this.#isOpen
  }

  /** Whether the connection is closed or closing, and its tunnels with it. */
  get isBroken (): boolean {
    return this.#session!.destroyed || this.#transport!.destroyed
  }

  /** Whether there is a connection, even before TLS and HTTP/2 are set up. */
  get hasTransport (): boolean {
    return this.#transport !== undefined
  }

  /** Whether a tunnel with this key can join. */
  takes (key: unknown): boolean {
    return this.#users < this.#maxStreams && isDeepStrictEqual(this.#key, key)
  }

  join (): this {
    this.#users++
    return this
  }

  /** The last user to leave closes the connection. */
  leave (): void {
    if (--this.#users === 0) this.#close()
  }

  /** Takes no more tunnels; existing ones go on. */
  retire (): void {
    sessions.delete(this)
  }

  /** Requests a tunnel; undefined if this session takes no more. */
  request ({ headers }: ConnectPlan): Http2Tunnel | undefined {
    const session = this.#session!
    if (session.closed || session.destroyed) return
    if (this.#streams > 0 && this.#streams >= this.#maxStreams) return
    const tunnel = new Http2Tunnel(session, headers as OutgoingHttpHeaders, {
      explain: () => this.#explain(),
      onReceived: () => this.#liveness?.received(),
      onSent: (bytes) => this.#liveness?.sent(bytes),
      onUnblocked: () => this.#liveness?.unblocked()
    })
    this.#streams++
    tunnel.stream.on('close', () => {
      this.#streams--
      if (this.#isClosing && this.#streams === 0) session.close()
    })
    return tunnel
  }

  async #open (plan: ConnectPlan): Promise<void> {
    try {
      const transport = await this.#connect(plan)
      const session = connectHttp2(`${plan.secure ? 'https' : 'http'}://${plan.host}`, {
        createConnection: () => transport,
        settings: { enablePush: false, initialWindowSize: STREAM_WINDOW }
      })
      this.#session = session
      const settings = await this.#begin(session, plan)
      if (settings.enableConnectProtocol !== true) throw errors.FST_RELAY_HTTP2('its SETTINGS lack ENABLE_CONNECT_PROTOCOL (RFC 8441)')
      rememberAddress(transport)
      this.#isOpen = true
    } catch (error) {
      if (isRelayError(error)) throw error
      throw connectError(describeFault(error, plan, this.#transport), error)
    }
  }

  async #connect (plan: ConnectPlan): Promise<Duplex> {
    const { signal } = this.#opening
    this.#transport = await openTransport(plan, signal)
    if (signal.aborted) {
      this.#transport.destroy()
      signal.throwIfAborted()
    }
    if (plan.secure && plan.createConnection === undefined) await secured(this.#transport as TLSSocket)
    return this.#transport
  }

  /** Resolves with the other side's SETTINGS. */
  async #begin (session: ClientHttp2Session, plan: ConnectPlan): Promise<Settings> {
    session.on('goaway', (code) => {
      if (code !== constants.NGHTTP2_NO_ERROR) this.#goaway = errorCodeName(code)
      this.retire()
    })
    session.on('remoteSettings', ({ maxConcurrentStreams = Infinity }) => { this.#maxStreams = maxConcurrentStreams })
    session.on('connect', () => {
      session.setLocalWindowSize(CONNECTION_WINDOW)
      this.#watch(session, plan)
    })
    return await new Promise((resolve, reject) => {
      session.once('remoteSettings', resolve)
      session.on('error', (error: NodeJS.ErrnoException) => {
        reject(error.code === 'ERR_HTTP2_ERROR' ? errors.FST_RELAY_HTTP2(`what it sends is not HTTP/2 (${describeError(error)})`) : error)
      })
      session.on('close', () => {
        this.retire()
        this.#liveness?.stop()
        this.#unwatch?.()
        reject(new Error('the server closed the connection'))
      })
    })
  }

  /** Tunnels without keepalives would not notice a dead connection, and a NAT on the path might forget an idle one. */
  #watch (session: ClientHttp2Session, { keepaliveInterval, keepaliveTimeout }: ConnectPlan): void {
    const cut = (text: string) => {
      this.retire()
      this.#transport!.destroy(errors.FST_RELAY_ABORTED(text))
    }
    const liveness = new Liveness({
      interval: keepaliveInterval,
      timeout: keepaliveTimeout,
      isAnswered: true,
      ask: () => {
        // A destroyed session throws until it has emitted 'close'.
        if (session.destroyed) return
        session.ping((error) => { if (error === null) liveness.answered() })
        liveness.sent(0)
      },
      onDead: (text) => cut(text ?? `no PING was answered for ${keepaliveTimeout} ms`)
    })
    this.#liveness = liveness
    this.#unwatch = watchAddress(this.#transport!, cut)
  }

  #explain (): Error | undefined {
    const { errored, destroyed } = this.#transport!
    if (errored !== null && errored !== undefined) return errored
    if (this.#goaway !== undefined) return errors.FST_RELAY_ABORTED(`GOAWAY with ${this.#goaway}`)
    return destroyed ? errors.FST_RELAY_ABORTED('the connection was cut') : undefined
  }

  #close (): void {
    this.retire()
    if (!this.#isOpen) return this.#destroy()
    // A GOAWAY would overtake what streams still have to send, even if only END_STREAM.
    this.#isClosing = true
    if (this.#streams === 0) this.#session!.close()
    const timer = setTimeout(() => this.#destroy(), CLOSE_MS)
    this.#transport!.on('close', () => clearTimeout(timer))
  }

  #destroy (): void {
    this.#opening.abort()
    this.#session?.destroy()
    this.#transport?.destroy()
  }
}

/** Waits for TLS, and checks that it has chosen HTTP/2. */
async function secured (socket: TLSSocket): Promise<void> {
  try {
    await once(socket, 'secureConnect')
  } catch (error) {
    const refuses = (error as NodeJS.ErrnoException).code === 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL'
    throw refuses ? errors.FST_RELAY_HTTP2('it refuses h2 in ALPN') : error
  }
  if (socket.alpnProtocol !== httpVersions[2].alpn) throw errors.FST_RELAY_HTTP2('it has not chosen h2 in ALPN')
}
