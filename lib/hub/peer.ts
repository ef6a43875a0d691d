import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { CloseReason } from '../framing/close-reasons.ts'
import type { Framing, FramingName } from '../framing/framing.ts'
import type { Clock } from './clock.ts'
import type { Counters } from './counters.ts'
import type { HubOptions } from '../options.ts'
import type { UdpSendFault } from '../udp-socket.ts'

/** What a channel is called; channels with different keys never meet. */
export interface ChannelKey {
  /** The URL pattern of the route, or what its option `scope` says. */
  scope: string
  name: string
  /** `packet`: any number of peers exchange datagrams; `stream`: two tunnels are spliced; `target`: each leads to its own target. */
  kind: 'packet' | 'stream' | 'target'
}

/** A target that takes datagrams and sends some. */
export interface DatagramTarget {
  /** Begins to receive; `onError` is told what the network reports, which is not the end. */
  receive: (onDatagram: (datagram: Buffer) => void, onError: (code: string) => void) => void
  /** Sends a datagram, whose memory must not be written to again, and tells what became of it. */
  send: (datagram: Buffer, onSent: (fault: UdpSendFault | undefined) => void) => void
  close: () => void
}

/** Where a tunnel leads instead of to other peers: connected, and not read yet. */
export type ConnectedTarget = Duplex | DatagramTarget

/** What admission has found out about a tunnel. */
export interface Admitted {
  channel: ChannelKey
  /** A given id makes the identity outlive its tunnel; without one it is random. */
  id: string | undefined
  /** The WireGuard public key, 32 bytes. */
  publicKey: Buffer | undefined
  /** What `identify` has given for the app's own use. */
  context: unknown
  /** The client's address; undefined on a unix socket. */
  address: string | undefined
  /** What limits per client go by; undefined where there is no address. */
  client: string | undefined
  /** The upgrade token. */
  protocol: string
  /** Undefined for `raw`. */
  framing: Framing | undefined
  /** Whether the protocol lets the relay send keepalives, and expect some sign of life. */
  hasKeepalive: boolean
  /** Bytes towards the client wait until its first one has come, or a moment has passed: there are clients that lose what follows the 101 at once. */
  holdsOutput: boolean
  target?: ConnectedTarget | undefined
}

/** Why a tunnel has ended: what the relay told the other side, or what it saw. */
export type DetachReason = CloseReason |
  /** The other side ended its stream. */
  'ended' |
  /** The connection broke. */
  'lost' |
  /** No second tunnel came to a stream channel in time. */
  'pair-timeout' |
  /** The other tunnel of a stream channel broke. */
  'partner-lost'

/** A peer as the hub shows it. */
export interface PeerInfo {
  id: string
  channel: ChannelKey
  address: string | undefined
  protocol: string
  framing: FramingName
  /** As `wg pubkey` prints it. */
  publicKey: string | undefined
  context: unknown
  attachedAt: Date
  datagramsIn: number
  datagramsOut: number
  /** Bytes of the tunnel, framing included. */
  bytesIn: number
  bytesOut: number
  /** Datagrams from or for this peer that went nowhere. */
  drops: number
}

/** What all peers of a hub share. */
export interface HubContext {
  readonly options: Required<HubOptions>
  readonly clock: Clock
  readonly counters: Counters
  detached: (peer: Peer, reason: DetachReason, text: string) => void
}

/** An admitted tunnel. */
export abstract class Peer {
  readonly id: string
  readonly admitted: Admitted
  readonly tunnel: Duplex
  readonly hub: HubContext
  readonly attachedAt = Date.now()
  datagramsIn = 0
  datagramsOut = 0
  bytesIn = 0
  bytesOut = 0
  drops = 0
  /** When the last byte came, by the hub's clock. */
  receivedAt: number
  /** Whether the peer has left its channel; its socket may still be open for a moment. */
  isDetached = false

  constructor (admitted: Admitted, tunnel: Duplex, hub: HubContext) {
    this.id = admitted.id ?? randomUUID()
    this.admitted = admitted
    this.tunnel = tunnel
    this.hub = hub
    this.receivedAt = hub.clock.now
  }

  /** Leaves the channel at once, tells the other side why where the framing can, and ends the tunnel. */
  abstract close (reason: DetachReason, text: string): void

  /** Called once per tick: deadlines and keepalives. */
  abstract sweep (): void

  /** Takes note of bytes that came out of the tunnel. */
  protected count (length: number): void {
    this.bytesIn += length
    this.receivedAt = this.hub.clock.now
  }

  /** Asks the other side to come back later, and closes. */
  shutDown (): void {
    this.close('shutdown', 'the relay is shutting down')
  }

  info (): PeerInfo {
    const { channel, address, protocol, framing, publicKey, context } = this.admitted
    return {
      id: this.id,
      channel,
      address,
      protocol,
      framing: framing?.name ?? 'raw',
      publicKey: publicKey?.toString('base64'),
      context,
      attachedAt: new Date(this.attachedAt),
      datagramsIn: this.datagramsIn,
      datagramsOut: this.datagramsOut,
      bytesIn: this.bytesIn,
      bytesOut: this.bytesOut,
      drops: this.drops
    }
  }
}
