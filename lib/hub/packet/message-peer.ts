import type { DetachReason } from '../../tunnel/close-reasons.ts'
import type { MessageReader, MessageSink } from '../../tunnel/message-reader.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { PacketPeer, type PacketRouter } from './packet-peer.ts'
import type { Admitted } from '../admitted.ts'
import type { HubContext } from '../peer.ts'

/** A peer whose tunnel carries one datagram per message. */
export class MessagePeer extends PacketPeer implements MessageSink {
  readonly #messages: MessageReader
  #isFlushDue = false

  constructor (admitted: Admitted, messages: MessageReader, tunnel: Tunnel, router: PacketRouter, hub: HubContext) {
    super(admitted, messages.encoding, tunnel, router, hub)
    this.#messages = messages
    messages.read(this)
  }

  bytes (length: number): void {
    this.count(length)
  }

  message (datagram: Buffer): void {
    const { length } = datagram
    if (length > this.hub.options.maxPacketSize) return this.tooLarge()
    this.datagramsIn++
    if (length === 0) return this.drop('empty')
    this.router.route(this, datagram, 0, 0, length, false)
    this.#flushSoon()
  }

  ended (reason: DetachReason, text: string): void {
    this.close(reason, text)
  }

  protected override leave (reason: DetachReason, text: string): void {
    this.#messages.close(reason, text)
  }

  /** Flushes after the current chunk, whose messages usually arrive together. */
  #flushSoon (): void {
    if (this.#isFlushDue) return
    this.#isFlushDue = true
    queueMicrotask(() => {
      this.#isFlushDue = false
      this.router.flush()
    })
  }
}
