import { classify, clearReserved, isHandshake } from '../../framing/wireguard.ts'
import { countUp } from '../counters.ts'
import { createPacketPeer } from '../packet/create-packet-peer.ts'
import type { PacketPeer, PacketRouter } from '../packet/packet-peer.ts'
import type { Admitted, DatagramTarget } from '../admitted.ts'
import type { HubContext, Peer } from '../peer.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { TargetStreamPeer } from './target-stream-peer.ts'

/** A channel whose tunnels each go to their own target. Its peers never reach each other. */
export class TargetChannel {
  readonly #hub: HubContext
  readonly #peers = new Set<Peer>()

  constructor (hub: HubContext) {
    this.#hub = hub
  }

  get isEmpty (): boolean {
    return this.#peers.size === 0
  }

  get peers (): Peer[] {
    return [...this.#peers]
  }

  /** Replaces no peers: a client may open many connections to one target, as SSH and browsers do. */
  replacedBy (): Peer[] {
    return []
  }

  checkRoom (): void {}

  attach (admitted: Admitted, tunnel: Tunnel): Peer {
    const target = admitted.target!
    const detach = (peer: Peer): void => { this.#peers.delete(peer) }
    const peer = target.carries === 'stream'
      ? new TargetStreamPeer(admitted, tunnel, target.tunnel, detach, this.#hub)
      : joinDatagrams(admitted, tunnel, target, detach, this.#hub)
    this.#peers.add(peer)
    return peer
  }

  sweep (): void {
    for (const peer of this.#peers) peer.sweep()
  }
}

function joinDatagrams (admitted: Admitted, tunnel: Tunnel, target: DatagramTarget, detach: (peer: Peer) => void, hub: HubContext): Peer {
  const router = new TargetRouter(target, detach, hub)
  const peer = createPacketPeer(admitted, tunnel, router, hub)
  router.receive(peer)
  return peer
}

/** Carries datagrams between one peer and its target. */
class TargetRouter implements PacketRouter {
  readonly #target: DatagramTarget
  readonly #detach: (peer: Peer) => void
  readonly #hub: HubContext

  constructor (target: DatagramTarget, detach: (peer: Peer) => void, hub: HubContext) {
    this.#target = target
    this.#detach = detach
    this.#hub = hub
  }

  receive (peer: PacketPeer): void {
    const { counters, options } = this.#hub
    const flush = (): void => peer.queue.flush()
    this.#target.receive((datagram) => {
      counters.targetDatagramsIn++
      const { length } = datagram
      if (length === 0) return peer.drop('empty')
      if (length > options.maxPacketSize) return peer.drop('too-large')
      const isUrgent = isHandshake(classify(datagram, 0, length))
      // Datagrams received in one turn of the event loop leave in one write.
      if (peer.queue.add(datagram, 0, 0, length, false, undefined, isUrgent)) setImmediate(flush)
    }, (code) => countUp(counters.targetErrors, code))
  }

  route (from: PacketPeer, chunk: Buffer, _frame: number, start: number, end: number, stamped: boolean): void {
    // Copied, because the chunk's memory may be reused before the system sends the datagram.
    const datagram = Buffer.from(chunk.subarray(start, end))
    if (stamped) clearReserved(datagram, 0)
    this.#target.send(datagram, (fault) => {
      if (fault === undefined) this.#hub.counters.targetDatagramsOut++
      else from.drop(fault)
    })
  }

  flush (): void {}

  detach (peer: PacketPeer): void {
    this.#target.close()
    this.#detach(peer)
  }
}
