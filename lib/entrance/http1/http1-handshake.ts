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

/** The entrance for HTTP/1.1 upgrades (RFC 9110, section 7.8): from a claimed request to a tunnel. */

/** An upgrade request between its arrival and its answer. */
export class Http1Handshake extends Handshake {
  override readonly httpVersion = '1.1'
  declare readonly request: IncomingMessage
  protected declare response: ServerResponse | undefined
  readonly #socket: Socket
  /** Whether it is up to a WebSocket server what becomes of it. */
  #isWithServer = false
  /** Whether Node has told that the response has ended. */
  #hasAnswered = false

  /**
   * @param onSettled called once: with undefined after the 101, else with the refusal
   */
  constructor (request: IncomingMessage, socket: Socket, head: Buffer, onSettled: (refusal: Refusal | undefined) => void) {
    super(request, onSettled)
    this.#socket = socket
    // Before anything is written: a RST that meets no listener would end the process.
    socket.on('error', this.#onError)
    socket.on('close', this.#onClose)
    socket.on('end', this.#onEnd)
    // Early data is delivered before the end of the stream, so a client that has sent some and ended has not left.
    if (head.length > 0) socket.unshift(head)
  }

  override get asked (): string | undefined {
    return this.request.headers.upgrade
  }

  /** Without a key, `Upgrade: websocket` is the HTTPUpgrade transport. */
  override get asksForWebSocket (): boolean {
    return this.request.headers['sec-websocket-key'] !== undefined
  }

  override accept (protocol: string, answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): Tunnel {
    const response = this.response!
    // Those that hooks have set on the raw response are among `hookHeaders`.
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
    // ws reads the request once more. What it would choose by itself has been chosen.
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
        // It is the hub's to close: @fastify/websocket closes its own without a reason, and apps send to all of them.
        server.clients?.delete(webSocket)
        onOpen({ webSocket, stream: socket, tunnel: socketTunnel(socket) })
      }, (error) => {
        onFault(error)
        // What has been opened, or told otherwise, stays so.
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
    // A hook that writes on behind an answer that was not its own must not end the process.
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
      // The earlier answer has ended the connection.
      if (!socket.writable) return this.refused(pipelined.statusCode!, pipelined)
      const earlier = answerOn(socket)
      if (earlier === undefined) return this.refuse(pipelined)
      // Behind Node's own listener, which gives the socket to the next answer that waits for it.
      earlier.once('finish', next)
    }
    socket.on('drain', () => {
      // Node leaves this to the owner of an upgraded socket; without it, an earlier answer that is a stream would stop.
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

  /** The new owner adds its listeners in this same turn of the event loop. */
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
    // The response ends with the tunnel, as over HTTP/2; Fastify then runs `onResponse`. Where nobody listens it is not kept for that.
    if (response.listenerCount('finish') + response.listenerCount('close') > 0) {
      response.statusCode = 101
      socket.once('close', () => {
        response.emit('finish')
        response.emit('close')
      })
    }
    // As those of an HTTP server are; an HTTPS server's would end with the other side.
    socket.allowHalfOpen = true
    socket.setTimeout(0)
    prepareTcp(socket)
  }

  readonly #onError = (): void => {
    this.#socket.destroy()
  }

  /** The client has ended its stream and nothing of it is left to deliver: it has left, as with any other request in Node. */
  readonly #onEnd = (): void => {
    this.#socket.destroy()
  }

  /** Lets `request.signal` and `onRequestAbort` know when the client leaves while hooks run. */
  readonly #onClose = (): void => {
    this.stopDeadline()
    this.request.destroy()
    if (!this.isSettled) {
      // The app's own server may have refused by its options, which it does itself.
      const wasRefused = this.#isWithServer && this.#socket.writableEnded
      if (wasRefused) this.#leave(400, new errors.FST_RELAY_WEBSOCKET_SERVER())
      else this.#leave(499, new errors.FST_RELAY_CLIENT_GONE())
    }
    // Of an answer that was never sent whole, Node tells `close` only. Over HTTP/2 it tells both.
    if (!this.#hasAnswered) this.response?.emit('finish')
  }

  /** @param statusCode what the log says of it, in Fastify's own line as well */
  #leave (statusCode: number, reason: FastifyError): void {
    if (this.response?.headersSent === false) this.response.statusCode = statusCode
    this.refused(statusCode, reason)
  }

  /** As Node does for any other response: else a stream that a hook replies with would stop when the socket is full. */
  readonly #onDrain = (): void => {
    if (this.response?.writableNeedDrain === true) this.response.emit('drain')
  }

  readonly #onAnswered = (): void => {
    this.#hasAnswered = true
    this.stopDeadline()
    const response = this.response!
    response.detachSocket(this.#socket)
    // As Node does where it has made the response.
    process.nextTick(() => response.emit('close'))
    this.#socket.off('end', this.#onEnd)
    this.#socket.off('drain', this.#onDrain)
    endAndLinger(this.#socket)
  }
}

/** Tells when the whole of the answer has been handed over, which `finish` does only when the system has taken it. */
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

/** The headers of an answer that ends the connection, and tells which protocols the client may ask for instead. */
export function offerUpgrade (tokens: readonly string[]): { connection: string, upgrade?: string } {
  if (tokens.length === 0) return { connection: 'close' }
  // RFC 9110, section 7.8: who sends Upgrade also sends it as a connection option.
  return { connection: 'close, upgrade', upgrade: tokens.join(', ') }
}

/** As ws writes them. */
function headerLines (headers: OutgoingHttpHeaders): string[] {
  return Object.entries(headers).flatMap(([name, value]) => [value].flat().map((line) => `${name}: ${line}`))
}
