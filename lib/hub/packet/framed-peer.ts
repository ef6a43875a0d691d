import type { DatagramSink, Decoder, Framing, FramingFault } from '../../framing/framing.ts'
import { CLOSING, PING, pong, readClosing } from '../../framing/wg.ts'
import { closingCodeOf, type DetachReason } from '../../tunnel/close-reasons.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { PacketPeer, type PacketRouter } from './packet-peer.ts'
import type { Admitted } from '../admitted.ts'
import type { HubContext } from '../peer.ts'

/** Reconnects after a shutdown are spread over this many milliseconds. */
const DRAIN_SPREAD_MS = 1000

/** A peer whose datagrams are decoded from the byte stream by one of our framings. */
export class FramedPeer extends PacketPeer implements DatagramSink {
  readonly #framing: Framing
  readonly #decoder: Decoder
  #owedPong: Buffer | undefined
  /** The client's closing text, if it sent one. */
  #farewell = 'the client ended the tunnel'

  constructor (admitted: Admitted, framing: Framing, tunnel: Tunnel, router: PacketRouter, hub: HubContext) {
    super(admitted, framing, tunnel, router, hub)
    this.#framing = framing
    this.#decoder = framing.createDecoder(this, hub.options)
    tunnel.onData((chunk) => this.#read(chunk))
    tunnel.onEnd(() => this.#ended())
  }

  datagram (chunk: Buffer, frame: number, start: number, end: number, stamped: boolean): void {
    this.datagramsIn++
    this.router.route(this, chunk, frame, start, end, stamped)
  }

  control (type: number, chunk: Buffer, start: number, end: number): void {
    // One pong per chunk: only the latest ping needs an answer.
    if (type === PING) this.#owedPong = pong(chunk, start, end)
    else if (type === CLOSING) this.#farewell = `the client closed: ${readClosing(chunk, start, end).text}`
  }

  protected override leave (reason: DetachReason, text: string): void {
    const code = closingCodeOf(reason)
    this.tunnel.leave(reason, text, code === undefined ? undefined : this.#framing.closing(code, text))
  }

  override shutDown (): void {
    const drain = this.#framing.drain(Math.floor(Math.random() * DRAIN_SPREAD_MS))
    if (drain !== undefined) this.queue.control(drain)
    super.shutDown()
  }

  #read (chunk: Buffer): void {
    // The linger discards bytes that arrive after the close.
    if (this.isDetached) return
    this.count(chunk.length)
    const fault = this.#decode(chunk)
    this.tunnel.shareReads()
    if (fault !== undefined) return this.close(fault.reason, fault.text)
    if (this.#owedPong === undefined) return
    this.queue.control(this.#owedPong)
    this.#owedPong = undefined
  }

  #decode (chunk: Buffer): FramingFault | undefined {
    try {
      return this.#decoder.push(chunk)
    } finally {
      this.router.flush()
    }
  }

  #ended (): void {
    const fault = this.#decoder.end()
    if (fault !== undefined) this.close(fault.reason, fault.text)
    else this.close('ended', this.#farewell)
  }
}
