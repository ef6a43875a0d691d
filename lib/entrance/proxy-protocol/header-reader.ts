import type { Server as HttpServer } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import { isIP, type Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import type { FastifyBaseLogger } from 'fastify'
import { carrierOf } from '../../internals/tls-carrier.ts'
import { decodeProxyHeader, type Endpoint } from '../../util/proxy-header.ts'

/** The reasons for refusing a connection. */
const refusals = ['not-a-proxy', 'no-header', 'malformed', 'incomplete', 'timeout', 'unknown-client'] as const

type ConnectionRefusal = typeof refusals[number]

/** Refused connections by server and reason. */
const refusedBy = new WeakMap<object, Record<ConnectionRefusal, number>>()

/** The validated options of `proxyProtocol`. */
export interface Settings {
  isProxy: (server: HttpServer | HttpsServer, socket: Socket) => boolean
  required: boolean
  timeout: number
}

/** A live record of a server's refused connections, by reason. It is empty for a server that `proxyProtocol` did not create. */
export function refusedConnections (server: object): Readonly<Record<string, number>> {
  return refusedBy.get(server) ?? {}
}

/** Reads the PROXY headers of one server's connections. */
export class HeaderReader {
  readonly #server: HttpServer | HttpsServer
  readonly #settings: Settings
  readonly #log: FastifyBaseLogger
  /** Connections whose header is still incomplete, each with a function that destroys it. */
  readonly #awaited = new Map<Socket, () => void>()
  /** The client endpoint that a connection's header named. */
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
      // When a TLS handshake fails, the app still sees the client's address.
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

  /** Emits to the server's listeners. Look `emit` up at each call: tracing libraries may patch the prototype at any time. */
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
    // Do not log a connection that sent no data: some health checks open such connections.
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

  /** Passes the connection to HTTP or TLS, with `rest` as its first bytes. */
  #handOver (socket: Socket, rest: Buffer): void {
    // Keep incoming data in the socket until its new owner listens.
    socket.pause()
    if (rest.length > 0) socket.unshift(rest)
    this.#emit('connection', socket)
    // HTTP listens for `data`, so resume the socket. TLS reads the bytes by itself.
    if (socket.listenerCount('data') > 0) socket.resume()
  }

  /**
   * Gives a TLS connection the client address of its underlying connection.
   * @returns false if the underlying connection is unknown; the TLS connection is then closed
   */
  #identify (secure: TLSSocket): boolean {
    const socket = carrierOf(secure)
    if (socket === undefined) {
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

/** Overrides the socket's remote address and port. From now on, Node and Fastify report the given endpoint. */
function setRemote (socket: Socket, { address, port }: Endpoint): void {
  const remote = { remoteAddress: address, remotePort: port, remoteFamily: isIP(address) === 4 ? 'IPv4' : 'IPv6' }
  for (const [name, value] of Object.entries(remote)) Object.defineProperty(socket, name, { value, configurable: true, enumerable: true })
}
