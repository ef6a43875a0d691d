import { errors } from '../../errors.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import type { Admitted } from '../admitted.ts'
import type { HubContext, Peer } from '../peer.ts'
import { ReplacementLimit } from '../replacement-limit.ts'
import { StreamPeer } from './stream-peer.ts'

/** A channel that splices two tunnels. */
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

  /** The peers that this one replaces. If one belongs to a pair, its partner goes too. */
  replacedBy ({ id }: Admitted): StreamPeer[] {
    return [...this.#peers].filter((peer) => id !== undefined && peer.id === id)
  }

  /**
   * @param isAgain true if the replacement was counted already
   * @throws an error with a status if there is no room for one more tunnel
   */
  checkRoom (admitted: Admitted, isAgain = false): void {
    const older = this.replacedBy(admitted)
    if (this.#waitingPeer === undefined && [...this.#peers].some((peer) => peer.isPaired && !peer.leavesWith(older))) {
      throw new errors.FST_RELAY_CHANNEL_PAIRED()
    }
    if (older.length > 0 && !isAgain) this.#replacements.count(admitted.id!, this.#hub.clock.now)
  }

  attach (admitted: Admitted, tunnel: Tunnel): Peer {
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
