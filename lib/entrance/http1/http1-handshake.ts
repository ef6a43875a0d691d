import { STATUS_CODES, ServerResponse, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError } from 'fastify'
import { errors } from '../../errors.ts'
import { answerOn } from '../../internals/answer-on-socket.ts'
import { limitInflated, openWebSocket } from '../../internals/ws-internals.ts'
import { endAndLinger } from '../../tunnel/linger.ts'
import { prepareTcp } from '../../util/tcp-socket.ts'
import { socketTunnel } from '../../tunnel/socket/socket-tunnel.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { Handshake, type Refusal, type ReplyHeaders, type WebSocketOutcome } from '../handshake.ts'
import type { WebSocketSettings } from '../websocket/websocket-servers.ts'

/** The handshake of an HTTP/1.1 upgrade (RFC 9110, section 7.8), from a claimed request to a tunnel. */

/** An upgrade request, from its arrival to its answer. */
export class Http1Handshake extends Handshake {
  override readonly httpVersion = '1.1'
  declare readonly request: IncomingMessage
  protected declare response: ServerResponse | undefined
  readonly #socket: Socket
  /** True while a WebSocket server decides about the upgrade. */
  #isWithServer = false
  /** True once the response has emitted `finish`. */
  #hasAnswered = false

  /**
   * @param onSettled called once, with undefined after the 101, else with the refusal
   */
  constructor (request: IncomingMessage, socket: Socket, head: Buffer, onSettled: (refusal: Refusal | undefined) => void) {
    super(request, onSettled)
    this.#socket = socket
    // Add the listeners before any write: a RST without an `error` listener would end the process.
    socket.on('error', this.#onError)
    socket.on('close', this.#onClose)
    socket.on('end', this.#onEnd)
    // Node delivers early data before the end of the stream, so a client that sends some and then ends has not left.
    if (head.length > 0) socket.unshift(head)
  }

  override get asked (): string | undefined {
    return this.request.headers.upgrade
  }

  /** `Upgrade: websocket` without a key means the HTTPUpgrade transport. */
  override get asksForWebSocket (): boolean {
    return this.request.headers['sec-websocket-key'] !== undefined
  }

  override accept (protocol: string, answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): Tunnel {
    const response = this.response!
    // `hookHeaders` includes the headers that hooks have set on the raw response.
    for (const name of response.getHeaderNames()) response.removeHeader(name)
    response.sendDate = false
    response.writeHead(101, 'Switching Protocols', this.headersBesides({ Connection: 'Upgrade', Upgrade: protocol, ...answerHeaders }, hookHeaders))
    response.flushHeaders()
    this.#handOver()
    return socketTunnel(this.#socket)
  }

  override acceptWebSocket (settings: WebSocketSettings, hookHeaders: ReplyHeaders, { onOpen, onFailed, onFault }: WebSocketOutcome): void {
    const { request } = this
    const { server, protocol, maxInflated, answerHeaders } = settings
    const socket = this.#socket
    // ws negotiates again from the request, so leave it only the protocol already chosen.
    request.headers.upgrade = 'websocket'
    if (protocol === undefined) delete request.headers['sec-websocket-protocol']
    else request.headers['sec-websocket-protocol'] = protocol
    socket.once('close', onFailed)
    this.#isWithServer = true
    try {
      openWebSocket(server, request, socket, headerLines(this.headersBesides(answerHeaders, hookHeaders)), (webSocket) => {
        // The deadline may have passed.
        if (this.isSettled) return webSocket.terminate()
        socket.off('close', onFailed)
        this.#handOver()
        limitInflated(webSocket, maxInflated)
        // The hub closes this WebSocket. @fastify/websocket closes every client without a reason, and apps broadcast to all clients.
        server.clients?.delete(webSocket)
        onOpen({ webSocket, stream: socket, tunnel: socketTunnel(socket) })
      }, (error) => {
        onFault(error)
        // The fault does not change a handshake that is already settled.
        if (this.isSettled) return
        socket.off('close', onFailed)
        this.#isWithServer = false
        onFailed()
        this.interrupt(new errors.FST_RELAY_WEBSOCKET_FAULT())
      })
    } catch (error) {
      socket.off('close', onFailed)
      this.#isWithServer = false
      throw error
    }
  }

  protected override get isWritable (): boolean {
    return this.#socket.writable
  }

  protected override respond (): ServerResponse | undefined {
    const response = new HandshakeResponse(this.request, () => { if (!this.#socket.destroyed) this.answered() })
    response.shouldKeepAlive = false
    // A hook may write after the relay has answered. The resulting error must not end the process.
    response.on('error', () => {})
    try {
      response.assignSocket(this.#socket)
    } catch {
      return undefined
    }
    response.on('finish', this.#onAnswered)
    this.#socket.on('drain', this.#onDrain)
    this.response = response
    return response
  }

  protected override waitForTurn (timeout: number): void {
    const socket = this.#socket
    const timer = setTimeout(() => {
      this.refused(503, new errors.FST_RELAY_HANDSHAKE_TIMEOUT(timeout))
      socket.destroy()
    }, timeout)
    const pipelined = new errors.FST_RELAY_PIPELINED()
    const next = (): void => {
      if (socket.destroyed) return
      // The earlier answer ended the connection.
      if (!socket.writable) return this.refused(pipelined.statusCode!, pipelined)
      const earlier = answerOn(socket)
      if (earlier === undefined) return this.refuse(pipelined)
      // Runs after Node's own listener, which assigns the socket to the next waiting answer.
      earlier.once('finish', next)
    }
    socket.on('drain', () => {
      // Node does not forward `drain` on an upgraded socket. Without this, an earlier streamed answer would stall.
      const earlier = answerOn(socket)
      if (earlier !== this.response && earlier?.writableNeedDrain === true) earlier.emit('drain')
    })
    socket.once('close', () => clearTimeout(timer))
    next()
  }

  protected override writeHead (statusCode: number, headers: OutgoingHttpHeaders): void {
    this.response!.writeHead(statusCode, STATUS_CODES[statusCode]!, { ...offerUpgrade([]), ...headers })
  }

  protected override destroy (): void {
    this.#socket.destroy()
  }

  /** Releases the socket to its new owner, which adds its listeners in the same turn of the event loop. */
  #handOver (): void {
    const socket = this.#socket
    const response = this.response!
    response.detachSocket(socket)
    this.opened()
    socket.off('error', this.#onError)
    socket.off('close', this.#onClose)
    socket.off('end', this.#onEnd)
    socket.off('drain', this.#onDrain)
    response.off('finish', this.#onAnswered)
    // The response ends with the tunnel, as over HTTP/2, so that Fastify runs `onResponse`. Without listeners, do not retain the response.
    if (response.listenerCount('finish') + response.listenerCount('close') > 0) {
      response.statusCode = 101
      socket.once('close', () => {
        response.emit('finish')
        response.emit('close')
      })
    }
    // HTTP servers set this on their sockets. An HTTPS server's socket would end when the peer ends.
    socket.allowHalfOpen = true
    socket.setTimeout(0)
    prepareTcp(socket)
  }

  readonly #onError = (): void => {
    this.#socket.destroy()
  }

  /** The client has ended its stream and all its data is delivered. As for any other request in Node, that means it has left. */
  readonly #onEnd = (): void => {
    this.#socket.destroy()
  }

  /** Settles the handshake when the client leaves. Triggers `request.signal` and `onRequestAbort` while hooks still run. */
  readonly #onClose = (): void => {
    this.stopDeadline()
    this.request.destroy()
    if (!this.isSettled) {
      // The app's own WebSocket server may have refused the upgrade because of its options, and answered by itself.
      const wasRefused = this.#isWithServer && this.#socket.writableEnded
      if (wasRefused) this.#leave(400, new errors.FST_RELAY_WEBSOCKET_SERVER())
      else this.#leave(499, new errors.FST_RELAY_CLIENT_GONE())
    }
    // Node emits only `close` for an incomplete answer. Over HTTP/2 it emits `finish` too.
    if (!this.#hasAnswered) this.response?.emit('finish')
  }

  /** @param statusCode the status for the log, including Fastify's own log line */
  #leave (statusCode: number, reason: FastifyError): void {
    if (this.response?.headersSent === false) this.response.statusCode = statusCode
    this.refused(statusCode, reason)
  }

  /** Forwards `drain`, as Node does for other responses. Without it, a hook's streamed reply would stall on backpressure. */
  readonly #onDrain = (): void => {
    if (this.response?.writableNeedDrain === true) this.response.emit('drain')
  }

  readonly #onAnswered = (): void => {
    this.#hasAnswered = true
    this.stopDeadline()
    const response = this.response!
    response.detachSocket(this.#socket)
    // Node does the same for responses that it creates.
    process.nextTick(() => response.emit('close'))
    this.#socket.off('end', this.#onEnd)
    this.#socket.off('drain', this.#onDrain)
    endAndLinger(this.#socket)
  }
}

/** Reports when the whole answer has been written. `finish` comes only after the OS has taken it. */
class HandshakeResponse extends ServerResponse {
  readonly #onEnded: () => void

  constructor (request: IncomingMessage, onEnded: () => void) {
    super(request)
    this.#onEnded = onEnded
  }

  override end (...args: unknown[]): this {
    super.end(...args as any)
    if (this.writableEnded) this.#onEnded()
    return this
  }
}

/** The headers of an answer that ends the connection and lists the protocols that the client may ask for instead. */
export function offerUpgrade (tokens: readonly string[]): { connection: string, upgrade?: string } {
  if (tokens.length === 0) return { connection: 'close' }
  // RFC 9110, section 7.8: a sender of Upgrade must also send it as a connection option.
  return { connection: 'close, upgrade', upgrade: tokens.join(', ') }
}

/** Formats headers as ws expects them: one line per value. */
function headerLines (headers: OutgoingHttpHeaders): string[] {
  return Object.entries(headers).flatMap(([name, value]) => [value].flat().map((line) => `${name}: ${line}`))
}
