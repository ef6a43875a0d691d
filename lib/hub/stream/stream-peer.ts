import type { DetachReason } from '../../tunnel/close-reasons.ts'
import { afterFirstByte, forward } from '../../tunnel/splice.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { WaitingBytes } from '../../util/waiting-bytes.ts'
import { WriteDeadline } from '../../tunnel/write-deadline.ts'
import type { Admitted } from '../admitted.ts'
import { Peer, type HubContext } from '../peer.ts'

/** The channel of stream peers. */
export interface StreamPeerOwner {
  /** Called when the peer leaves. */
  detach: (peer: StreamPeer) => void
}

/** Bytes read from a waiting tunnel, at most. Without reading, a disconnect would go unnoticed. */
const MAX_WAITING_BYTES = 64 * 1024

/** A peer of a stream channel. It waits for a second tunnel; then the two are spliced. */
export class StreamPeer extends Peer {
  readonly #channel: StreamPeerOwner
  #partner: StreamPeer | undefined
  readonly #waitingSince: number
  readonly #waiting = new WaitingBytes()
  /** True while nothing may be written to this client; see `Admitted.holdsOutput`. */
  #isHeld: boolean
  #onReleased: (() => void) | undefined
  /** When this side's stream has ended, by the hub's clock. */
  #halfClosedAt: number | undefined
  readonly #deadline: WriteDeadline

  constructor (admitted: Admitted, tunnel: Tunnel, channel: StreamPeerOwner, hub: HubContext) {
    super(admitted, tunnel, hub)
    this.#channel = channel
    this.#waitingSince = hub.clock.now
    this.#deadline = new WriteDeadline(tunnel)
    tunnel.onError((error) => this.#broken(error.message))
    tunnel.onClose(() => this.#closed())
    tunnel.onData(this.#onWaitingData)
    tunnel.onEnd(() => this.#ended())
    this.#isHeld = admitted.holdsOutput
    if (this.#isHeld) afterFirstByte(tunnel, () => this.#release())
  }

  get isWaiting (): boolean {
    return this.#partner === undefined
  }

  /** True while both tunnels of the pair are attached. One may stay briefly to deliver its partner's data. */
  get isPaired (): boolean {
    return this.#partner?.isDetached === false
  }

  /** True if closing `peers` closes this one too. */
  leavesWith (peers: StreamPeer[]): boolean {
    return peers.includes(this) || (this.#partner !== undefined && peers.includes(this.#partner))
  }

  /** Splices this waiting tunnel with a new one. */
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
    }
    if (!to.#isHeld) return begin()
    this.tunnel.hold()
    to.#onReleased = begin
  }

  override close (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.#detach(reason, text)
    const partner = this.#partner
    if (partner === undefined || partner.isDetached) return this.tunnel.leave(reason, text)
    // The stream is incomplete, so abort: a normal end would look like the other side's own end.
    this.tunnel.abort(reason, text)
    if (reason === 'shutdown') partner.breakOff(reason, text)
    else partner.breakOff('partner-lost', 'the other tunnel was closed')
  }

  /** Called when the partner leaves before the stream is complete. */
  breakOff (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.#detach(reason, text)
    this.tunnel.abort(reason, text)
  }

  override sweep (): void {
    const { clock, options } = this.hub
    if (this.#partner === undefined && clock.now - this.#waitingSince > options.pairTimeout) {
      return this.close('pair-timeout', `no second tunnel connected within ${options.pairTimeout} ms`)
    }
    if (this.#halfClosedAt !== undefined && clock.now - this.#halfClosedAt > options.halfClosedTimeout) {
      return this.close('idle', `half-open for ${options.halfClosedTimeout} ms`)
    }
    if (this.#deadline.isOver(this.bytesOut, clock.now, options.writeTimeout)) {
      return this.close('write-deadline', `nothing could be written for ${options.writeTimeout} ms`)
    }
    // Data may flow in one direction only.
    const receivedAt = Math.max(this.receivedAt, this.#partner?.receivedAt ?? 0)
    this.sweepSilence(receivedAt, options.idleTimeout)
  }

  readonly #onWaitingData = (chunk: Buffer): void => {
    this.count(chunk.length)
    this.#waiting.add(chunk)
    if (this.#waiting.length >= MAX_WAITING_BYTES) this.tunnel.hold()
  }

  #ended (): void {
    if (this.#partner === undefined) this.close('ended', 'the client left while waiting for the second tunnel')
    else this.#halfClosedAt = this.hub.clock.now
  }

  #release (): void {
    this.#isHeld = false
    this.#onReleased?.()
  }

  #pairWith (partner: StreamPeer): void {
    this.#partner = partner
    this.tunnel.offData(this.#onWaitingData)
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

  /** Called when the socket closes, normally or because of a failure. */
  #closed (): void {
    if (this.#halfClosedAt === undefined || !this.tunnel.isFinished) this.#broken('the connection was closed')
    else if (!this.isDetached) this.#detach('ended', 'both directions have ended')
  }

  #detach (reason: DetachReason, text: string): void {
    this.isDetached = true
    this.tunnel.offData(this.#onWaitingData)
    this.#waiting.take()
    this.#channel.detach(this)
    this.hub.detached(this, reason, text)
  }
}
