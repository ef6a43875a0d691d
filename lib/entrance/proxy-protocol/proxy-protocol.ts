import { createServer as createHttpServer, type RequestListener, type Server as HttpServer, type ServerOptions as HttpServerOptions } from 'node:http'
import { createServer as createHttpsServer, type Server as HttpsServer, type ServerOptions as HttpsServerOptions } from 'node:https'
import { BlockList, isIP, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { FastifyBaseLogger, FastifyServerFactoryHandler } from 'fastify'
import { canonicalAddress } from '../../admission/client-address.ts'
import { optionError } from '../../hub/hub-options.ts'
import { decodeProxyHeader, type Endpoint } from '../../util/proxy-header.ts'

/**
 * Accepts the PROXY protocol on the listener of an app. Node hands each connection to HTTP, or to TLS, by the event
 * `connection`, which may as well be emitted by anybody (so its documentation): here it is held back until the header
 * has been read. Everything else stays with the server that Fastify would have made by itself.
 */

export interface ProxyProtocolOptions {
  /** The proxies: addresses and CIDRs, and `unix:` for whoever may connect to a unix socket. Nobody else's header is read. */
  from: readonly string[]
  /**
   * Default true: a connection without a header, and any that is not from `from`, is closed. With false they are
   * served as they are; a client's own header is then believed if a proxy of `from` does not send one before it.
   */
  required?: boolean
  /** How long the header, or with `required: false` the first bytes, may take, in milliseconds; default 5 s. */
  timeout?: number
}

/** Why a connection was refused. */
const refusals = ['not-a-proxy', 'no-header', 'malformed', 'incomplete', 'timeout', 'unknown-client'] as const

type ConnectionRefusal = typeof refusals[number]

/** How many connections each server has refused. */
const refusedBy = new WeakMap<object, Record<ConnectionRefusal, number>>()

interface Settings {
  isProxy: (server: HttpServer | HttpsServer, socket: Socket) => boolean
  required: boolean
  timeout: number
}

/** Those of Fastify's options that make a server, as it gives them to a factory: defaults are filled in. */
interface FactoryOptions {
  http2?: boolean
  http?: HttpServerOptions
  https?: HttpsServerOptions | true | null
  keepAliveTimeout: number
  requestTimeout: number
  connectionTimeout: number
  maxRequestsPerSocket: number
  logger: FastifyBaseLogger
}

/** For Fastify's option `serverFactory`, beside `https` or not. */
export type ProxyProtocolServerFactory =
  <RawServer extends HttpServer | HttpsServer = HttpServer>(handler: FastifyServerFactoryHandler<RawServer>, options: Record<string, unknown>) => RawServer

const UNIX = 'unix:'

/**
 * A server factory for Fastify whose servers read PROXY headers, so that `request.ip` is the client's address.
 * @throws FST_RELAY_OPTION
 */
export function proxyProtocol (options: ProxyProtocolOptions): ProxyProtocolServerFactory {
  const settings = readOptions(options)
  return <RawServer extends HttpServer | HttpsServer>(handler: FastifyServerFactoryHandler<RawServer>, options: Record<string, unknown>) => {
    const factoryOptions = options as unknown as FactoryOptions
    const server = createServer(handler as RequestListener, factoryOptions)
    new HeaderReader(server, settings, factoryOptions.logger).install()
    return server as RawServer
  }
}

/** The connections that a server has refused so far, by reason, as a record that goes on counting; none for a server of another make. */
export function refusedConnections (server: object): Readonly<Record<string, number>> {
  return refusedBy.get(server) ?? {}
}

function readOptions ({ from, required = true, timeout = 5000 }: ProxyProtocolOptions): Settings {
  if (typeof required !== 'boolean') throw optionError('required', 'true or false', required)
  if (!Number.isInteger(timeout) || timeout < 1 || timeout >= 2 ** 31) throw optionError('timeout', `a whole number from 1 to ${2 ** 31 - 1}`, timeout)
  if (!Array.isArray(from) || from.length === 0) throw optionError('from', 'a list of addresses and CIDRs', from)
  const proxies = new BlockList()
  for (const entry of from) {
    if (entry !== UNIX) addProxy(proxies, entry)
  }
  const unixIsProxy = from.includes(UNIX)
  return {
    required,
    timeout,
    isProxy (server, { remoteAddress }) {
      if (typeof server.address() === 'string') return unixIsProxy
      const address = canonicalAddress(remoteAddress)
      return address !== undefined && proxies.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6')
    }
  }
}

function addProxy (proxies: BlockList, entry: unknown): void {
  const [, address = '', prefix] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(String(entry)) ?? []
  const [type, bits] = isIP(address) === 4 ? ['ipv4', 32] as const : ['ipv6', 128] as const
  const length = Number(prefix ?? bits)
  if (isIP(address) === 0 || length > bits) throw optionError('from', `a list of addresses, CIDRs and "${UNIX}"`, entry)
  proxies.addSubnet(address, length, type)
}

/** What Fastify does without a factory. */
function createServer (handler: RequestListener, options: FactoryOptions): HttpServer | HttpsServer {
  if (options.http2 === true) throw optionError('http2', 'left out beside proxyProtocol, which makes HTTP/1.1 servers', true)
  const { http = {}, https } = options
  const server = https ? createHttpsServer(https === true ? {} : https, handler) : createHttpServer(http, handler)
  server.keepAliveTimeout = options.keepAliveTimeout
  server.requestTimeout = options.requestTimeout
  server.setTimeout(options.connectionTimeout)
  if (options.maxRequestsPerSocket > 0) server.maxRequestsPerSocket = options.maxRequestsPerSocket
  return server
}

/** Reads the headers of one server's connections. */
class HeaderReader {
  readonly #server: HttpServer | HttpsServer
  readonly #settings: Settings
  readonly #log: FastifyBaseLogger
  /** Connections whose header is awaited: each with what gives it up. */
  readonly #awaited = new Map<Socket, () => void>()
  /** Whose connection it is, of those whose header told. */
  readonly #clients = new WeakMap<Socket, Endpoint>()
  readonly #refused = Object.fromEntries(refusals.map((refusal) => [refusal, 0])) as Record<ConnectionRefusal, number>

  constructor (server: HttpServer | HttpsServer, settings: Settings, log: FastifyBaseLogger) {
    this.#server = server
    this.#settings = settings
    this.#log = log
  }

  install (): void {
    const server = this.#server
    refusedBy.set(server, this.#refused)
    server.emit = (event: string, ...args: unknown[]) => {
      if (event === 'connection') {
        this.#begin(args[0] as Socket)
        return true
      }
      if (event === 'secureConnection' && !this.#identify(args[0] as TLSSocket)) return true
      // Of a connection whose TLS handshake fails, the app sees this much.
      if (event === 'tlsClientError') this.#identify(args[1] as TLSSocket)
      return this.#emit(event, ...args)
    }
    const prototype: HttpServer = Object.getPrototypeOf(server)
    server.close = (callback) => {
      this.#giveUp()
      return prototype.close.call(server as HttpServer, callback) as typeof server
    }
    server.closeAllConnections = () => {
      this.#giveUp()
      prototype.closeAllConnections.call(server as HttpServer)
    }
  }

  /** To the listeners. Looked up at each call: tracing libraries patch the prototype at any time. */
  #emit (event: string, ...args: unknown[]): boolean {
    return Object.getPrototypeOf(this.#server).emit.call(this.#server, event, ...args)
  }

  #begin (socket: Socket): void {
    if (this.#settings.isProxy(this.#server, socket)) this.#await(socket)
    else if (this.#settings.required) this.#refuse(socket, 'not-a-proxy', 'not from an address that may send a PROXY header')
    else this.#emit('connection', socket)
  }

  #await (socket: Socket): void {
    const { required, timeout } = this.#settings
    let received: Buffer = Buffer.alloc(0)

    const refuse = (refusal: ConnectionRefusal, reason: string): void => {
      settle()
      this.#refuse(socket, refusal, reason)
    }
    const onData = (chunk: Buffer): void => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      const decoded = decodeProxyHeader(received)
      if (decoded.kind === 'incomplete') return
      if (decoded.kind === 'malformed') return refuse('malformed', `malformed PROXY header: ${decoded.reason}`)
      if (decoded.kind === 'absent' && required) return refuse('no-header', 'no PROXY header')
      settle()
      if (decoded.kind === 'absent') return this.#handOver(socket, received)
      if (decoded.connection !== undefined) {
        this.#clients.set(socket, decoded.connection.source)
        setRemote(socket, decoded.connection.source)
      }
      this.#handOver(socket, received.subarray(decoded.length))
    }
    // A connection that has said nothing, as some health checks make them, is not worth a line in the log.
    const onGone = (): void => {
      if (received.length > 0) return refuse('incomplete', 'ended within the PROXY header')
      settle()
      socket.destroy()
    }
    // `close` follows.
    const onError = (): void => {}
    const deadline = setTimeout(() => refuse('timeout', `no complete PROXY header after ${timeout} ms`), timeout)
    const settle = (): void => {
      clearTimeout(deadline)
      this.#awaited.delete(socket)
      socket.off('data', onData).off('end', onGone).off('close', onGone).off('error', onError)
    }

    this.#awaited.set(socket, () => {
      settle()
      socket.destroy()
    })
    socket.on('data', onData).on('end', onGone).on('close', onGone).on('error', onError)
  }

  /** Gives the connection to HTTP, or to TLS, as if `rest` were the first bytes of it. */
  #handOver (socket: Socket, rest: Buffer): void {
    // Whatever comes must stay in the socket until its new owner listens.
    socket.pause()
    if (rest.length > 0) socket.unshift(rest)
    this.#emit('connection', socket)
    // HTTP reads by listening to `data`; TLS takes the bytes by itself.
    if (socket.listenerCount('data') > 0) socket.resume()
  }

  /**
   * Gives a TLS connection the address of the connection that it goes through.
   * @returns false if that is not to be found, and the connection closed
   */
  #identify (secure: TLSSocket): boolean {
    // No public API leads there. Node's own timers go this way, from 0.12 to 26.
    const socket = (secure as TLSSocket & { _parent?: Socket | null })._parent
    if (socket == null) {
      this.#refuse(secure, 'unknown-client', 'a TLS connection that does not tell what it goes through')
      return false
    }
    const client = this.#clients.get(socket)
    if (client !== undefined) setRemote(secure, client)
    return true
  }

  #refuse (socket: Socket, refusal: ConnectionRefusal, reason: string): void {
    this.#refused[refusal]++
    this.#log.info({ address: socket.remoteAddress, reason }, 'connection refused')
    socket.destroy()
  }

  #giveUp (): void {
    for (const giveUp of this.#awaited.values()) giveUp()
  }
}

/** From here on, Node, Fastify and everybody else take it for a connection from there. */
function setRemote (socket: Socket, { address, port }: Endpoint): void {
  const remote = { remoteAddress: address, remotePort: port, remoteFamily: isIP(address) === 4 ? 'IPv4' : 'IPv6' }
  for (const [name, value] of Object.entries(remote)) Object.defineProperty(socket, name, { value, configurable: true, enumerable: true })
}
