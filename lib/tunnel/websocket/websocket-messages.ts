import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { webSocketEncoding } from '../../framing/websocket-encoding.ts'
import { MAX_DATAGRAM_SIZE } from '../../framing/wireguard.ts'
import { webSocketCodeOf, type DetachReason } from '../close-reasons.ts'
import type { MessageReader, MessageSink } from '../message-reader.ts'
import { closeCodes, closeWebSocket, limitMessages, onWebSocketEnd } from './websocket-ending.ts'

/** Datagrams as binary messages of a WebSocket. ws reads incoming messages. Outgoing ones are framed here. */
export class WebSocketMessages implements MessageReader {
  readonly encoding = webSocketEncoding
  readonly #socket: WebSocket
  readonly #stream: Duplex
  /** The Close code to send instead of the reason's. */
  #closeCode: number | undefined
  #isClosed = false

  /** @param stream the stream that carries `socket` */
  constructor (socket: WebSocket, stream: Duplex) {
    this.#socket = socket
    this.#stream = stream
  }

  read (sink: MessageSink): void {
    const socket = this.#socket
    const stream = this.#stream
    const refuse = (code: number, text: string): void => {
      this.#closeCode = code
      sink.ended('protocol-error', text)
    }
    limitMessages(socket, stream, MAX_DATAGRAM_SIZE, () => refuse(closeCodes.messageTooBig, `a message of more than ${MAX_DATAGRAM_SIZE} bytes`))
    // Before ws: the chunk must count as a sign of life before its messages are handled.
    stream.prependListener('data', (chunk: Buffer) => sink.bytes(chunk.length))
    stream.on('data', () => this.#checkOpen(sink))
    socket.on('message', (message, isBinary) => {
      if (this.#isClosed) return
      const { length } = message as Buffer
      if (!isBinary) refuse(closeCodes.unsupportedData, 'a text message')
      else if (length > MAX_DATAGRAM_SIZE) refuse(closeCodes.messageTooBig, `a message of ${length} bytes`)
      else sink.message(message as Buffer)
    })
    socket.on('error', (error) => sink.ended('protocol-error', error.message))
    onWebSocketEnd(socket, () => sink.ended('lost', 'the connection was closed without a Close frame'))
  }

  close (reason: DetachReason, text: string): void {
    this.#isClosed = true
    closeWebSocket(this.#socket, this.#closeCode ?? webSocketCodeOf(reason), text)
  }

  /** Leaves once the client has closed: nothing may follow the Close frame that ws sent in reply. */
  #checkOpen (sink: MessageSink): void {
    // ws destroys the stream without an error event for one cause only: too many pings.
    if (this.#stream.destroyed) sink.ended('limit', 'the client sent more pings than can be answered at once')
    else if (this.#socket.readyState !== this.#socket.OPEN) sink.ended('ended', 'the client closed its WebSocket')
  }
}
