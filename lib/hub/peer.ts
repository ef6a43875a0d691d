import { randomUUID } from 'node:crypto'
import type { DetachReason } from '../tunnel/close-reasons.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { Admitted } from './admitted.ts'
import type { Clock } from './clock.ts'
import type { Counters } from './counters.ts'
import type { PeerInfo } from './hub-info.ts'
import type { HubOptions } from './hub-options.ts'
import { Keepalive } from './keepalive.ts'
import type { HandshakeFaultInfo } from './packet/handshake-record.ts'

/** Shared by all peers of a hub. */
export interface HubContext {
  readonly options: Required<HubOptions>
  readonly clock: Clock
  readonly counters: Counters
  detached: (peer: Peer, reason: DetachReason, text: string) => void
  /** Handshakes from the peer fail repeatedly. */
  handshakesFail: (peer: Peer, fault: HandshakeFaultInfo) => void
  /** The peer with the id `by` answers handshakes again. */
  handshakesSucceed: (peer: Peer, by: string) => void
}

/** An admitted tunnel. */
export abstract class Peer {
  readonly id: string
  readonly admitted: Admitted
  readonly tunnel: Tunnel
  readonly hub: HubContext
  readonly attachedAt = Date.now()
  datagramsIn = 0
  datagramsOut = 0
  bytesIn = 0
  bytesOut = 0
  drops = 0
  /** When the last byte arrived, by the hub's clock. */
  receivedAt: number
  /** True once the peer has left its channel. Its socket may stay open briefly. */
  isDetached = false
  readonly #keepalive: Keepalive | undefined

  constructor (admitted: Admitted, tunnel: Tunnel, hub: HubContext) {
    this.id = admitted.id ?? randomUUID()
    this.admitted = admitted
    this.tunnel = tunnel
    this.hub = hub
    this.receivedAt = hub.clock.now
    if (admitted.hasKeepalive) this.#keepalive = new Keepalive(hub.options, hub.clock.now)
    tunnel.onSign(() => { this.receivedAt = hub.clock.now })
  }

  /** Leaves the channel at once, tells the other side why if the framing can, and ends the tunnel. */
  abstract close (reason: DetachReason, text: string): void

  /** Called once per tick. Checks deadlines and sends keepalives. */
  abstract sweep (): void

  /** Sends a keepalive. Called only if the protocol has one. */
  protected keepAlive (): void {
    this.tunnel.ping()
  }

  /**
   * Sends keepalives, and closes the tunnel after too much silence.
   * @param receivedAt when a tunnel without keepalives was last active
   * @param idleTimeout milliseconds of silence that end a tunnel without keepalives; 0: never
   */
  protected sweepSilence (receivedAt: number, idleTimeout: number): void {
    const { clock, options } = this.hub
    const keepalive = this.#keepalive
    // Do not count silence while reading is paused.
    if (keepalive !== undefined && this.tunnel.isPaused) this.receivedAt = clock.now
    const limit = keepalive === undefined ? idleTimeout : options.keepaliveTimeout
    const silence = clock.now - (keepalive === undefined ? receivedAt : this.receivedAt)
    if (limit > 0 && silence > limit) return this.close('idle', `nothing received for ${limit} ms`)
    if (keepalive?.isDue(clock.now, this.bytesOut, this.receivedAt) === true) this.keepAlive()
  }

  /** Counts bytes received from the tunnel. */
  protected count (length: number): void {
    this.bytesIn += length
    this.receivedAt = this.hub.clock.now
  }

  /** Asks the other side to reconnect later, and closes. */
  shutDown (): void {
    this.close('shutdown', 'the relay is shutting down')
  }

  info (): PeerInfo {
    const { channel, address, protocol, httpVersion, framing, messages, publicKey, context } = this.admitted
    return {
      id: this.id,
      channel,
      address,
      protocol,
      httpVersion,
      framing: messages === undefined ? framing?.name ?? 'raw' : 'websocket',
      publicKey: publicKey?.toString('base64'),
      context,
      attachedAt: new Date(this.attachedAt),
      datagramsIn: this.datagramsIn,
      datagramsOut: this.datagramsOut,
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
      drops: this.drops,
      dropsByReason: {},
      sentTo: [],
      lastHandshake: undefined,
      handshakes: [],
      handshakeFaults: []
    }
  }
}
