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
export abstract class PacketPeer extends Peer implements QueueOwner {
  /** What datagrams that come from here are framed in; undefined: they are bare. */
  readonly framing: Framing | undefined
  readonly queue: SendQueue
  identity: Identity<PacketPeer> | undefined
  protected readonly router: PacketRouter
  readonly #encoding: Encoding
  #blockedSince: number | undefined
  #bytesTaken = 0
  /** Made with the first drop. */
  #dropsByReason: Partial<Record<DropReason, number>> | undefined
  /** As it was when the peer left. */
  #sentToAtEnd: PeerInfo['sentTo'] | undefined

  /** @param encoding what the tunnel takes */
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

  /** Counts datagrams from or for this peer that go nowhere. */
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
   * Tells the other side something about its handshakes, where its framing can. One whose socket is blocked is not told:
   * the notice would take the place of a pong that is owed.
   */
  notify (notice: NoticeName, text: string): void {
    const frame = this.framing?.notice(notices[notice], text)
    if (frame !== undefined && !this.queue.isBlocked) this.queue.control(frame)
  }

  override close (reason: DetachReason, text: string): void {
    if (this.isDetached) return
    this.isDetached = true
    // Its identity may go with it.
    this.#sentToAtEnd = this.#sentTo
    this.router.detach(this)
    this.drop('peer-closed', this.queue.clear())
    this.leave(reason, text)
    this.hub.detached(this, reason, text)
  }

  /** Tells the other side why, where it can be told, and ends the tunnel. */
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

  /** Whether the socket has taken something since the last sweep. */
  #hasWritten (): boolean {
    const before = this.#bytesTaken
    this.#bytesTaken = this.bytesOut - this.tunnel.writableLength
    return this.#bytesTaken !== before
  }
}
