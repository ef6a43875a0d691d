import { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { holdReads } from '../../internals/held-reads.ts'
import { closeCodes, closeWebSocket, limitMessages, onWebSocketEnd, type WebSocketEnd } from './websocket-ending.ts'

/** The largest message, in bytes. ws buffers a whole message, so this bounds the memory a client can use. */
export const MAX_STREAM_MESSAGE = 1024 * 1024

/** The most messages that may wait in the tunnel, however small they are. */
const MAX_MESSAGES = 16

/**
 * A WebSocket as a byte stream: the bytes of its messages, without their boundaries. RFC 6455 has no half-close (section
 * 1.4): once the client has closed, writes fail.
 */
export class WebSocketStream extends Duplex {
  readonly #socket: WebSocket
  readonly #tunnel: Duplex
  /** The client's Close frame. The end of the stream follows. */
  #received: WebSocketEnd | undefined
  /** Whether this side has begun to close. */
  #isClosing = false
  /** True once `closeAs` was called: later messages are discarded. */
  #isAbandoned = false
  /** The error to report if the connection breaks. */
  #failure = new Error('the connection was closed without a Close frame')
  /** Messages sent since the tunnel was last empty. */
  #messages = 0
  #farewell: { code: number | undefined, reason: string } = { code: closeCodes.normal, reason: '' }

  /** @param tunnel the stream that carries `socket` */
  constructor (socket: WebSocket, tunnel: Duplex) {
    super()
    this.#socket = socket
    this.#tunnel = tunnel
    limitMessages(socket, tunnel, MAX_STREAM_MESSAGE, () => this.#refuse(closeCodes.messageTooBig, 'a message is too big'))
    socket.on('message', (message, isBinary) => this.#take(message as Buffer, isBinary))
    socket.on('error', (error) => this.#refuse(closeCodes.internalError, error.message))
    tunnel.on('error', (error) => { this.#failure = error })
    tunnel.on('data', () => this.#checkOpen())
    onWebSocketEnd(socket, (end) => this.#ended(end))
  }

  /** The client's Close frame, once it has arrived. */
  get received (): WebSocketEnd | undefined {
    return this.#received
  }

  /** Bytes written that the tunnel has not taken yet. */
  get waiting (): number {
    return this.writableLength + this.#socket.bufferedAmount
  }

  /**
   * Calls `then` for each sign of life besides messages: pongs, and drained writes. A pong may come late, behind much
   * other data.
   */
  onSign (then: () => void): void {
    this.#socket.on('pong', then)
    this.#tunnel.on('drain', then)
  }

  ping (): void {
    if (!this.#tunnel.writableNeedDrain && this.#socket.readyState === this.#socket.OPEN) this.#socket.ping()
  }

  /** Ends the stream with this Close frame instead of the default, 1000. */
  endAs (code: number | undefined, reason: string): void {
    this.#farewell = { code, reason }
    this.end()
  }

  /** Breaks the stream off, with this Close frame. */
  closeAs (code: number, reason: string): void {
    this.#isClosing = this.#isAbandoned = true
    // ws has emitted `close` already, so `#ended` will not run again.
    if (this.#socket.readyState === this.#socket.CLOSED) this.destroy()
    else closeWebSocket(this.#socket, code, reason)
  }

  override _read (): void {
    this.#socket.resume()
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.#socket.readyState !== this.#socket.OPEN) return callback(new Error('the other side has closed its WebSocket'))
    let waits = false
    this.#socket.send(chunk, { binary: true }, (error) => { if (waits) callback(error) })
    // `bufferedAmount` includes messages that wait in ws for compression.
    const { bufferedAmount } = this.#socket
    this.#messages = bufferedAmount === 0 ? 0 : this.#messages + 1
    waits = bufferedAmount > this.#tunnel.writableHighWaterMark || this.#messages >= MAX_MESSAGES
    if (!waits) callback()
  }

  override _final (callback: () => void): void {
    this.#isClosing = true
    // No deadline: the client replies only after it has read everything sent before.
    this.#socket.close(this.#farewell.code, this.#farewell.reason)
    callback()
  }

  override _destroy (error: Error | null, callback: (error: Error | null) => void): void {
    // After a Close frame, leave it time to arrive.
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.terminate()
    callback(error)
  }

  #take (message: Buffer, isBinary: boolean): void {
    if (this.#isAbandoned) return
    if (!isBinary) return this.#refuse(closeCodes.unsupportedData, 'a text message')
    if (message.length > MAX_STREAM_MESSAGE) return this.#refuse(closeCodes.messageTooBig, `a message of ${message.length} bytes`)
    if (message.length === 0 || this.push(message)) return
    this.#socket.pause()
    // Otherwise bytes that are already read would wait in many separate pieces.
    holdReads(this.#tunnel)
  }

  /** After its Close frame, a client should close the connection, but may not. So the relay does. */
  #checkOpen (): void {
    if (this.#isClosing || this.#socket.readyState === this.#socket.OPEN) return
    this.#isClosing = true
    closeWebSocket(this.#socket, closeCodes.normal, '')
  }

  #ended (end: WebSocketEnd): void {
    if (this.#isAbandoned) {
      this.destroy()
    } else if (end.isOrderly) {
      this.#received = end
      this.push(null)
    } else {
      this.destroy(this.#failure)
    }
  }

  #refuse (code: number, text: string): void {
    this.closeAs(code, text)
    this.destroy(new Error(text))
  }
}
