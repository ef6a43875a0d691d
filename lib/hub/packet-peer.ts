import type { Duplex } from 'node:stream'
import { closeReasons, type CloseReason } from '../framing/close-reasons.ts'
import type { DatagramSink, Decoder, Framing } from '../framing/framing.ts'
import { CLOSING, PING, pong, readClosing } from '../framing/wg.ts'
import { endAndLinger } from '../linger.ts'
import type { DropReason } from './counters.ts'
import type { Identity } from './identity.ts'
import { Peer, type Admitted, type DetachReason, type HubContext } from './peer.ts'
import { SendQueue } from './send-queue.ts'

/** Keepalives of many peers that came at once are spread by this part of the interval. */
const JITTER = 0.1
/** Clients that are told to come back are spread over this many milliseconds. */
const DRAIN_SPREAD_MS = 1000
/** A UDP target keeps a port for each tunnel; one without keepalives is closed after this much silence where `idleTimeout` says nothing. */
const TARGET_IDLE_MS = 600_000

/** Where a peer's datagrams go. */
export interface PacketRouter {
  /** Takes one datagram; the parameters are those of `DatagramSink.datagram`. */
  route: (from: PacketPeer, chunk: Buffer, frame: number, start: number, end: number, stamped: boolean) => void
  /** The chunk that has just been read is done. */
  flush: () => void
  /** The peer has left. */
  detach: (peer: PacketPeer) => void
}

/** A peer whose tunnel carries datagrams: they come out of it and go into it. */
export class PacketPeer extends Peer implements DatagramSink {
  readonly framing: Framing
  readonly queue: SendQueue
  identity: Identity | undefined
  readonly #router: PacketRouter
  readonly #decoder: Decoder
  #blockedSince: number | undefined
  #keepaliveAt: number
  #bytesTaken = 0
  #bytesOutAtKeepalive = 0
  #owedPong: Buffer | undefined
  /** Why the client is about to end the tunnel, if it said so. */
  #farewell = 'the client ended the tunnel'

  constructor (admitted: Admitted, framing: Framing, tunnel: Duplex, router: PacketRouter, hub: HubContext) {
    super(admitted, tunnel, hub)
    this.framing = framing
    this.#router = router
    this.#decoder = framing.createDecoder(this, hub.options)
    this.queue = new SendQueue(tunnel, framing, this, (count) => this.drop('queue-full', count))
    this.#keepaliveAt = this.#nextKeepalive()
    tunnel.on('data', (chunk: Buffer) => this.#read(chunk))
    tunnel.on('end', () => this.#ended())
    tunnel.on('error', (error) => this.close('lost', error.message))
    tunnel.on('close', () => this.close('lost', 'the connection was closed'))
  }

  datagram (chunk: Buffer, frame: number, start: number, end: number, stamped: boolean): void {
    this.datagramsIn++
    this.#router.route(this, chunk, frame, start, end, stamped)
  }

  tooLarge (): void {
    this.datagramsIn++
    this.drop('too-large')
  }

  control (type: number, chunk: Buffer, start: number, end: number): void {
    // Written once per chunk: of many pings, only the latest is owed an answer.
    if (type === PING) this.#owedPong = pong(chunk, start, end)
    else if (type === CLOSING) this.#farewell = `the client closed: ${readClosing(chunk, start, end).text}`
  }

  /** Counts datagrams from or for this peer that go nowhere. */
  drop (reason: DropReason, count = 1): void {
    this.drops += count
    this.hub.counters.drops[reason] += count
  }

  override close (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.isDetached = true
    this.#router.detach(this)
    this.drop('peer-closed', this.queue.clear())
    const told = closeReasons[reason as CloseReason] as { code: number } | undefined
    endAndLinger(this.tunnel, told && this.framing.closing(told.code, text))
    this.hub.detached(this, reason, text)
  }

  override shutDown (): void {
    const drain = this.framing.drain(Math.floor(Math.random() * DRAIN_SPREAD_MS))
    if (drain !== undefined) this.queue.control(drain)
    super.shutDown()
  }

  override sweep (): void {
    const { clock, options } = this.hub
    if (!this.queue.isBlocked) {
      this.#blockedSince = undefined
    } else if (this.#blockedSince === undefined || this.#hasWritten()) {
      this.#blockedSince = clock.now
    } else if (clock.now - this.#blockedSince > options.writeTimeout) {
      return this.close('write-deadline', `nothing could be written for ${options.writeTimeout} ms`)
    }
    const limit = this.admitted.hasKeepalive ? options.keepaliveTimeout : this.#idleTimeout
    if (limit > 0 && clock.now - this.receivedAt > limit) {
      return this.close('idle', `nothing came for ${limit} ms`)
    }
    if (this.admitted.hasKeepalive && clock.now >= this.#keepaliveAt) this.#keepAlive()
  }

  get #idleTimeout (): number {
    const { idleTimeout } = this.hub.options
    return idleTimeout === 0 && this.admitted.target !== undefined ? TARGET_IDLE_MS : idleTimeout
  }

  /** Whether the socket has taken something since the last sweep. */
  #hasWritten (): boolean {
    const before = this.#bytesTaken
    this.#bytesTaken = this.bytesOut - this.tunnel.writableLength
    return this.#bytesTaken !== before
  }

  /** Sends a keepalive unless bytes went both ways since the last time. */
  #keepAlive (): void {
    const { clock, options } = this.hub
    const isBusy = this.bytesOut !== this.#bytesOutAtKeepalive && clock.now - this.receivedAt < options.keepaliveInterval
    if (!isBusy) this.queue.control(this.framing.keepalive())
    this.#bytesOutAtKeepalive = this.bytesOut
    this.#keepaliveAt = this.#nextKeepalive()
  }

  #nextKeepalive (): number {
    const { clock, options } = this.hub
    return clock.now + options.keepaliveInterval * (1 - JITTER + 2 * JITTER * Math.random())
  }

  #read (chunk: Buffer): void {
    // What comes after the close is discarded by the linger.
    if (this.isDetached) return
    this.bytesIn += chunk.length
    this.receivedAt = this.hub.clock.now
    const fault = this.#decoder.push(chunk)
    this.#router.flush()
    if (fault !== undefined) return this.close(fault.reason, fault.text)
    if (this.#owedPong === undefined) return
    this.queue.control(this.#owedPong)
    this.#owedPong = undefined
  }

  #ended (): void {
    const fault = this.#decoder.end()
    if (fault !== undefined) this.close(fault.reason, fault.text)
    else this.close('ended', this.#farewell)
  }
}
