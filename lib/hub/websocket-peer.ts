import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { closeCodes, closeWebSocket, limitMessages, onWebSocketEnd, webSocketEncoding } from '../framing/websocket.ts'
import { MAX_DATAGRAM_SIZE } from '../wireguard.ts'
import { closeCodeOf } from './close-code.ts'
import { PacketPeer, type PacketRouter } from './packet-peer.ts'
import type { Admitted, DetachReason, HubContext } from './peer.ts'

/** A peer whose datagrams are the binary messages of a WebSocket. */
export class WebSocketPeer extends PacketPeer {
  readonly #socket: WebSocket
  #isFlushDue = false
  /** The code of the Close frame, where it is not that of the reason. */
  #closeCode: number | undefined

  /** @param tunnel what `socket` speaks on */
  constructor (admitted: Admitted, socket: WebSocket, tunnel: Duplex, router: PacketRouter, hub: HubContext) {
    super(admitted, webSocketEncoding, tunnel, router, hub)
    this.#socket = socket
    limitMessages(socket, tunnel, MAX_DATAGRAM_SIZE, () => this.#refuse(closeCodes.messageTooBig, `a message of more than ${MAX_DATAGRAM_SIZE} bytes`))
    // Before ws, whose messages may be answered with this as the last sign of life.
    tunnel.prependListener('data', (chunk: Buffer) => this.count(chunk.length))
    tunnel.on('data', () => this.#checkOpen())
    socket.on('message', (message, isBinary) => this.#take(message as Buffer, isBinary))
    socket.on('error', (error) => this.close('protocol-error', error.message))
    onWebSocketEnd(socket, () => this.close('lost', 'the connection was closed without a Close frame'))
  }

  protected override leave (reason: DetachReason, text: string): void {
    closeWebSocket(this.#socket, this.#closeCode ?? closeCodeOf(reason), text)
  }

  #take (message: Buffer, isBinary: boolean): void {
    if (this.isDetached) return
    if (!isBinary) return this.#refuse(closeCodes.unsupportedData, 'a text message')
    const { length } = message
    if (length > MAX_DATAGRAM_SIZE) return this.#refuse(closeCodes.messageTooBig, `a message of ${length} bytes`)
    if (length > this.hub.options.maxPacketSize) return this.tooLarge()
    this.datagramsIn++
    if (length === 0) return this.drop('empty')
    this.router.route(this, message, 0, 0, length, false)
    this.#flushSoon()
  }

  /** Behind the chunk that is being read: ws hands over all its messages in one go, unless it has to inflate them. */
  #flushSoon (): void {
    if (this.#isFlushDue) return
    this.#isFlushDue = true
    queueMicrotask(() => {
      this.#isFlushDue = false
      this.router.flush()
    })
  }

  /** Nothing may follow the Close frame that ws has sent in answer to the client's. */
  #checkOpen (): void {
    // The one thing that ws does not put up with, nor tell.
    if (this.tunnel.destroyed) this.close('limit', 'more pings came than are answered at once')
    else if (this.#socket.readyState !== this.#socket.OPEN) this.close('ended', 'the client closed its WebSocket')
  }

  #refuse (code: number, text: string): void {
    this.#closeCode = code
    this.close('protocol-error', text)
  }
}
