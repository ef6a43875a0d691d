import type { Encoding, Framing } from '../../framing/framing.ts'
import { notices, type NoticeName } from '../../framing/notices.ts'
import type { DropReason } from '../counters.ts'
import { observe } from '../histogram.ts'
import type { Identity } from './identity.ts'
import type { DetachReason } from '../../tunnel/close-reasons.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import type { Admitted } from '../admitted.ts'
import type { PeerInfo } from '../hub-info.ts'
import { Peer, type HubContext } from '../peer.ts'
import { SendQueue, type QueueOwner } from './send-queue.ts'

/** Each tunnel to a UDP target holds a port. Without keepalives and with `idleTimeout` 0, it closes after this much silence. */
const TARGET_IDLE_MS = 600_000

/** Routes the datagrams of a peer. */
export interface PacketRouter {
  /** Routes one datagram. The parameters are those of `DatagramSink.datagram`. */
  route: (from: PacketPeer, chunk: Buffer, frame: number, start: number, end: number, stamped: boolean) => void
  /** Called after each chunk. */
  flush: () => void
  /** Called when the peer leaves. */
  detach: (peer: PacketPeer) => void
}

/** A peer whose tunnel carries datagrams. */
export abstract class PacketPeer extends Peer implements QueueOwner {
  /** The framing of datagrams from this peer; undefined if they are unframed. */
  readonly framing: Framing | undefined
  readonly queue: SendQueue
  identity: Identity<PacketPeer> | undefined
  protected readonly router: PacketRouter
  readonly #encoding: Encoding
  #blockedSince: number | undefined
  #bytesTaken = 0
  /** Created on the first drop. */
  #dropsByReason: Partial<Record<DropReason, number>> | undefined
  /** The value when the peer left. */
  #sentToAtEnd: PeerInfo['sentTo'] | undefined

  /** @param encoding how to encode datagrams for this tunnel */
  constructor (admitted: Admitted, encoding: Encoding, tunnel: Tunnel, router: PacketRouter, hub: HubContext) {
    super(admitted, tunnel, hub)
    this.router = router
    this.framing = admitted.framing
    this.#encoding = encoding
    this.queue = new SendQueue(tunnel, encoding, this)
    tunnel.onError((error) => this.close('lost', error.message))
    tunnel.onClose(() => this.close('lost', 'the connection was closed'))
  }

  tooLarge (): void {
    this.datagramsIn++
    this.drop('too-large')
  }

  /** Counts dropped datagrams from or to this peer. */
  drop (reason: DropReason, count = 1): void {
    if (count === 0) return
    this.drops += count
    const byReason = this.#dropsByReason ??= {}
    byReason[reason] = (byReason[reason] ?? 0) + count
    this.hub.counters.drops[reason] += count
  }

  waits (behind: number): void {
    observe(this.hub.counters.queue.depth, behind)
  }

  waited (milliseconds: number, count: number): void {
    observe(this.hub.counters.queue.seconds, milliseconds / 1000, count)
  }

  overflowed (count: number): void {
    this.drop('queue-full', count)
  }

  /**
   * Sends a notice about the client's handshakes, if the framing has notices. Skipped while the socket is blocked:
   * the notice would take the place of a pong that is due.
   */
  notify (notice: NoticeName, text: string): void {
    const frame = this.framing?.notice(notices[notice], text)
    if (frame !== undefined && !this.queue.isBlocked) this.queue.control(frame)
  }

  override close (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.isDetached = true
    // Read before `detach`, which may remove the identity.
    this.#sentToAtEnd = this.#sentTo
    this.router.detach(this)
    this.drop('peer-closed', this.queue.clear())
    this.leave(reason, text)
    this.hub.detached(this, reason, text)
  }

  /** Tells the other side why, if the protocol can, and ends the tunnel. */
  protected abstract leave (reason: DetachReason, text: string): void

  override info (): PeerInfo {
    const record = this.identity?.handshakes
    return {
      ...super.info(),
      sentTo: this.#sentToAtEnd ?? this.#sentTo,
      dropsByReason: { ...this.#dropsByReason },
      lastHandshake: record?.last && { id: record.last.id, at: new Date(record.last.at) },
      handshakes: record?.handshakes() ?? [],
      handshakeFaults: record?.faults(this.hub.clock.now) ?? []
    }
  }

  get #sentTo (): PeerInfo['sentTo'] {
    return [...this.identity?.sessions.traffic() ?? []].map(([{ id }, bytes]) => ({ id, bytes }))
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
    this.sweepSilence(this.receivedAt, this.#idleTimeout)
  }

  protected override keepAlive (): void {
    this.queue.control(this.#encoding.keepalive())
  }

  get #idleTimeout (): number {
    const { idleTimeout } = this.hub.options
    return idleTimeout === 0 && this.admitted.target !== undefined ? TARGET_IDLE_MS : idleTimeout
  }

  /** True if the socket accepted bytes since the last sweep. */
  #hasWritten (): boolean {
    const before = this.#bytesTaken
    this.#bytesTaken = this.bytesOut - this.tunnel.writableLength
    return this.#bytesTaken !== before
  }
}
