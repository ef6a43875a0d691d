import type { DetachReason } from '../../tunnel/close-reasons.ts'
import { afterFirstByte, forward } from '../../tunnel/splice.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { WriteDeadline } from '../../tunnel/write-deadline.ts'
import type { Admitted } from '../admitted.ts'
import { Peer, type HubContext } from '../peer.ts'

/** A peer whose tunnel is spliced with a connection to its target. */
export class TargetStreamPeer extends Peer {
  readonly #target: Tunnel
  readonly #leave: (peer: Peer) => void
  /** When one direction ended, by the hub's clock. */
  #halfClosedAt: number | undefined
  #targetReceivedAt = 0
  readonly #deadline: WriteDeadline
  readonly #targetDeadline: WriteDeadline

  constructor (admitted: Admitted, tunnel: Tunnel, target: Tunnel, leave: (peer: Peer) => void, hub: HubContext) {
    super(admitted, tunnel, hub)
    this.#target = target
    this.#leave = leave
    this.#deadline = new WriteDeadline(tunnel)
    this.#targetDeadline = new WriteDeadline(target)
    tunnel.onError((error) => this.close('lost', error.message))
    target.onError((error) => this.close('target-failed', error.message))
    for (const each of [tunnel, target]) {
      each.onEnd(() => { this.#halfClosedAt = hub.clock.now })
      each.onClose(() => this.#closed(each))
    }
    forward(tunnel, target, (length) => this.count(length))
    const answer = (): void => forward(target, tunnel, (length) => {
      this.bytesOut += length
      this.#targetReceivedAt = hub.clock.now
    })
    if (admitted.holdsOutput) afterFirstByte(tunnel, answer)
    else answer()
  }

  override close (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.#detach(reason, text)
    // The stream is incomplete, so abort: a normal end would look like the other side's own end.
    this.tunnel.abort(reason, text)
    this.#target.abort(reason, text)
  }

  override sweep (): void {
    const { clock, options } = this.hub
    if (this.#halfClosedAt !== undefined && clock.now - this.#halfClosedAt > options.halfClosedTimeout) {
      return this.close('idle', `half-open for ${options.halfClosedTimeout} ms`)
    }
    if (this.#deadline.isOver(this.bytesOut, clock.now, options.writeTimeout)) {
      return this.close('write-deadline', `nothing could be written for ${options.writeTimeout} ms`)
    }
    if (this.#targetDeadline.isOver(this.bytesIn, clock.now, options.writeTimeout)) {
      return this.close('target-failed', `nothing could be written to the target for ${options.writeTimeout} ms`)
    }
    this.sweepSilence(Math.max(this.receivedAt, this.#targetReceivedAt), options.idleTimeout)
  }

  /** Called when one of the two closes, normally or because of a failure. */
  #closed (tunnel: Tunnel): void {
    if (this.isDetached) return
    const isWhole = tunnel.hasEnded && tunnel.isFinished
    if (!isWhole) this.close(tunnel === this.tunnel ? 'lost' : 'target-failed', 'the connection was closed')
    else if (this.tunnel.isClosed && this.#target.isClosed) this.#detach('ended', 'both directions have ended')
  }

  #detach (reason: DetachReason, text: string): void {
    this.isDetached = true
    this.#leave(this)
    this.hub.detached(this, reason, text)
  }
}
