import { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { holdReads } from '../../internals/held-reads.ts'
import { closeCodes, closeWebSocket, limitMessages, onWebSocketEnd, type WebSocketEnd } from './websocket-ending.ts'

/** A message is gathered before it is passed on, so its size is what a client can make the relay hold. */
export const MAX_STREAM_MESSAGE = 1024 * 1024

/** So many messages are handed to the tunnel before it has taken the first of them, however small they are. */
const MAX_MESSAGES = 16

/**
 * A WebSocket as a byte stream: the bytes of its messages, without their boundaries. RFC 6455 has no half-close (section
 * 1.4): once the client has closed, nothing can be written any more, and writing fails.
 */
export class WebSocketStream extends Duplex {
  readonly #socket: WebSocket
  readonly #tunnel: Duplex
  /** How the client has closed; its end of the stream follows. */
  #received: WebSocketEnd | undefined
  /** Whether this side has begun to close. */
  #isClosing = false
  /** Whether nobody waits for the end of the stream any more. */
  #isAbandoned = false
  /** What broke the connection. */
  #failure = new Error('the connection was closed without a Close frame')
  /** Messages since the tunnel had taken all. */
  #messages = 0
  #farewell: { code: number | undefined, reason: string } = { code: closeCodes.normal, reason: '' }

  /** @param tunnel what `socket` speaks on */
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

  /** How the client has closed, once its end of the stream has come. */
  get received (): WebSocketEnd | undefined {
    return this.#received
  }

  /** Bytes written that the tunnel has not taken yet. */
  get waiting (): number {
    return this.writableLength + this.#socket.bufferedAmount
  }

  /** Calls back for each sign of life beside messages: answers to `ping`, which come late behind much else, and that the client takes what waits. */
  onSign (then: () => void): void {
    this.#socket.on('pong', then)
    this.#tunnel.on('drain', then)
  }

  ping (): void {
    if (!this.#tunnel.writableNeedDrain && this.#socket.readyState === this.#socket.OPEN) this.#socket.ping()
  }

  /** Ends the stream with this Close frame, instead of one that says that all is well. */
  endAs (code: number | undefined, reason: string): void {
    this.#farewell = { code, reason }
    this.end()
  }

  /** Breaks the stream off, and tells why. */
  closeAs (code: number, reason: string): void {
    this.#isClosing = this.#isAbandoned = true
    // No `close` will follow.
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
    // What is to be compressed waits in ws, and not in the tunnel yet.
    const { bufferedAmount } = this.#socket
    this.#messages = bufferedAmount === 0 ? 0 : this.#messages + 1
    waits = bufferedAmount > this.#tunnel.writableHighWaterMark || this.#messages >= MAX_MESSAGES
    if (!waits) callback()
  }

  override _final (callback: () => void): void {
    this.#isClosing = true
    // The client answers when it has read all that was sent before, however long that takes.
    this.#socket.close(this.#farewell.code, this.#farewell.reason)
    callback()
  }

  override _destroy (error: Error | null, callback: (error: Error | null) => void): void {
    // A Close frame on its way gets the time to arrive.
    if (this.#socket.readyState === this.#socket.OPEN) this.#socket.terminate()
    callback(error)
  }

  #take (message: Buffer, isBinary: boolean): void {
    if (this.#isAbandoned) return
    if (!isBinary) return this.#refuse(closeCodes.unsupportedData, 'a text message')
    if (message.length > MAX_STREAM_MESSAGE) return this.#refuse(closeCodes.messageTooBig, `a message of ${message.length} bytes`)
    if (message.length === 0 || this.push(message)) return
    this.#socket.pause()
    // What the tunnel has read already comes in pieces of their own memory.
    holdReads(this.#tunnel)
  }

  /** A client that has sent its Close frame is to close the connection, too, but may not. */
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
