import type { Duplex } from 'node:stream'
import { errors } from '../errors.ts'
import { isFinished } from '../http2-stream.ts'
import { holdReads } from '../held-reads.ts'
import { onEnd } from './on-end.ts'
import { Peer, type Admitted, type DetachReason, type HubContext } from './peer.ts'
import { ReplacementLimit } from './replacement-limit.ts'
import { abort, afterFirstByte, forward, leave } from './splice.ts'
import { WaitingBytes } from '../waiting-bytes.ts'
import { WriteDeadline } from './write-deadline.ts'

/** What is read from a tunnel that waits, in bytes: without reading, nobody would notice that it has gone. */
const MAX_WAITING_BYTES = 64 * 1024

/** A peer of a stream channel: a bare tunnel that waits for another one, then the two are spliced. */
class StreamPeer extends Peer {
  readonly #channel: StreamChannel
  #partner: StreamPeer | undefined
  readonly #waitingSince: number
  readonly #waiting = new WaitingBytes()
  /** Whether nothing may be written to this client yet; see `Admitted.holdsOutput`. */
  #isHeld: boolean
  #onReleased: (() => void) | undefined
  /** When this side's stream has ended, by the hub's clock. */
  #halfClosedAt: number | undefined
  readonly #deadline: WriteDeadline

  constructor (admitted: Admitted, tunnel: Duplex, channel: StreamChannel, hub: HubContext) {
    super(admitted, tunnel, hub)
    this.#channel = channel
    this.#waitingSince = hub.clock.now
    this.#deadline = new WriteDeadline(tunnel)
    tunnel.on('error', (error) => this.#broken(error.message))
    tunnel.on('close', () => this.#closed())
    tunnel.on('end', this.#onWaitingEnd)
    tunnel.on('data', this.#onWaitingData)
    this.#isHeld = admitted.holdsOutput
    if (this.#isHeld) afterFirstByte(tunnel, () => this.#release())
  }

  get isWaiting (): boolean {
    return this.#partner === undefined
  }

  /** Whether both tunnels of the pair are in the channel: one may stay for a while to deliver what the other has sent. */
  get isPaired (): boolean {
    return this.#partner?.isDetached === false
  }

  /** Whether it goes when these do. */
  leavesWith (peers: StreamPeer[]): boolean {
    return peers.includes(this) || (this.#partner !== undefined && peers.includes(this.#partner))
  }

  /** Splices this tunnel, which waited, with one that has come. */
  join (other: StreamPeer): void {
    this.#pairWith(other)
    other.#pairWith(this)
    this.#flowInto(other)
    other.#flowInto(this)
  }

  #flowInto (to: StreamPeer): void {
    const begin = (): void => {
      if (this.isDetached || to.isDetached) return
      if (this.#waiting.length > 0) to.#send(this.#waiting.take())
      forward(this.tunnel, to.tunnel, (length) => {
        this.count(length)
        to.bytesOut += length
      })
      onEnd(this.tunnel, () => { this.#halfClosedAt = this.hub.clock.now })
    }
    if (!to.#isHeld) return begin()
    holdReads(this.tunnel)
    to.#onReleased = begin
  }

  override close (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.#detach(reason, text)
    const partner = this.#partner
    if (partner === undefined || partner.isDetached) return leave(this.tunnel, reason, text)
    // The stream is cut short; its end must not look like one that the other side has sent.
    abort(this.tunnel, reason, text)
    if (reason === 'shutdown') partner.breakOff(reason, text)
    else partner.breakOff('partner-lost', 'the other tunnel was closed')
  }

  /** The partner is gone before the stream was whole. */
  breakOff (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.#detach(reason, text)
    abort(this.tunnel, reason, text)
  }

  override sweep (): void {
    const { clock, options } = this.hub
    if (this.#partner === undefined && clock.now - this.#waitingSince > options.pairTimeout) {
      return this.close('pair-timeout', `no second tunnel came within ${options.pairTimeout} ms`)
    }
    if (this.#halfClosedAt !== undefined && clock.now - this.#halfClosedAt > options.halfClosedTimeout) {
      return this.close('idle', `one direction had ended ${options.halfClosedTimeout} ms ago`)
    }
    if (this.#deadline.isOver(this.bytesOut, clock.now, options.writeTimeout)) {
      return this.close('write-deadline', `nothing could be written for ${options.writeTimeout} ms`)
    }
    // A stream may go in one direction only.
    const receivedAt = Math.max(this.receivedAt, this.#partner?.receivedAt ?? 0)
    this.sweepSilence(receivedAt, options.idleTimeout)
  }

  readonly #onWaitingData = (chunk: Buffer): void => {
    this.count(chunk.length)
    this.#waiting.add(chunk)
    if (this.#waiting.length >= MAX_WAITING_BYTES) holdReads(this.tunnel)
  }

  readonly #onWaitingEnd = (): void => {
    this.close('ended', 'the client left while it waited for the other tunnel')
  }

  #release (): void {
    this.#isHeld = false
    this.#onReleased?.()
  }

  #pairWith (partner: StreamPeer): void {
    this.#partner = partner
    this.tunnel.off('data', this.#onWaitingData)
    this.tunnel.off('end', this.#onWaitingEnd)
  }

  #send (chunk: Buffer): void {
    this.bytesOut += chunk.length
    this.tunnel.write(chunk)
  }

  #broken (text: string): void {
    if (this.isDetached) return
    this.#detach('lost', text)
    this.#partner?.breakOff('partner-lost', 'the other tunnel broke')
  }

  /** The socket is closed: after both directions have ended, or because it broke. */
  #closed (): void {
    if (this.#halfClosedAt === undefined || !isFinished(this.tunnel)) this.#broken('the connection was closed')
    else if (!this.isDetached) this.#detach('ended', 'both directions have ended')
  }

  #detach (reason: DetachReason, text: string): void {
    this.isDetached = true
    this.tunnel.off('data', this.#onWaitingData)
    this.#waiting.take()
    this.#channel.detach(this)
    this.hub.detached(this, reason, text)
  }
}

/** A channel in which two tunnels are spliced. */
export class StreamChannel {
  readonly #hub: HubContext
  readonly #peers = new Set<StreamPeer>()
  readonly #replacements = new ReplacementLimit()

  constructor (hub: HubContext) {
    this.#hub = hub
  }

  get isEmpty (): boolean {
    return this.#peers.size === 0
  }

  get peers (): Peer[] {
    return [...this.#peers]
  }

  get #waitingPeer (): StreamPeer | undefined {
    return [...this.#peers].find((peer) => peer.isWaiting)
  }

  /** The peers that have to leave when this one comes; with the one of a pair, the other goes too. */
  replacedBy ({ id }: Admitted): StreamPeer[] {
    return [...this.#peers].filter((peer) => id !== undefined && peer.id === id)
  }

  /**
   * @param isAgain whether the handshake has been counted among the replacements
   * @throws an error with a status when there is no room for one more tunnel
   */
  checkRoom (admitted: Admitted, isAgain = false): void {
    const older = this.replacedBy(admitted)
    if (this.#waitingPeer === undefined && [...this.#peers].some((peer) => peer.isPaired && !peer.leavesWith(older))) {
      throw new errors.FST_RELAY_CHANNEL_PAIRED()
    }
    if (older.length > 0 && !isAgain) this.#replacements.count(admitted.id!, this.#hub.clock.now)
  }

  attach (admitted: Admitted, tunnel: Duplex): Peer {
    for (const older of this.replacedBy(admitted)) older.close('replaced', 'another tunnel has the same identity now')
    const waiting = this.#waitingPeer
    const peer = new StreamPeer(admitted, tunnel, this, this.#hub)
    this.#peers.add(peer)
    waiting?.join(peer)
    return peer
  }

  detach (peer: StreamPeer): void {
    this.#peers.delete(peer)
  }

  sweep (): void {
    for (const peer of this.#peers) peer.sweep()
    this.#replacements.sweep(this.#hub.clock.now)
  }
}
