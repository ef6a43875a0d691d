import type { FramingName } from '../framing/framings.ts'
import type { DetachReason } from '../tunnel/close-reasons.ts'
import type { HttpVersion } from '../util/http-version.ts'
import type { Counters, DropReason } from './counters.ts'
import type { HandshakeFaultInfo, HandshakeInfo } from './packet/handshake-record.ts'

/** What a hub shows of itself, and what it is asked by. */

/** What a channel is called; channels with different keys never meet. */
export interface ChannelKey {
  /** The URL pattern of the route, or what its option `scope` says. */
  scope: string
  name: string
  /** `packet`: any number of peers exchange datagrams; `stream`: two tunnels are spliced; `target`: each leads to its own target. */
  kind: 'packet' | 'stream' | 'target'
}

/** A peer as the hub shows it. */
export interface PeerInfo {
  id: string
  channel: ChannelKey
  address: string | undefined
  protocol: string
  httpVersion: HttpVersion
  /** `websocket`: each message of a WebSocket is a datagram. */
  framing: FramingName | 'websocket'
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
  /** The same by reason; reasons that did not occur are left out. */
  dropsByReason: Partial<Record<DropReason, number>>
  /**
   * The peers of its channel that it has WireGuard sessions with, and how many bytes of transport data it has sent to each
   * of them: from the first session on, until the last has expired.
   */
  sentTo: Array<{ id: string, bytes: number }>
  /** The last WireGuard handshake that was answered, with whom and when; undefined for none. */
  lastHandshake: { id: string, at: Date } | undefined
  /** WireGuard handshakes with other peers of the channel, the newest first: the last 16 peers. */
  handshakes: HandshakeInfo[]
  /** Handshakes that it began, and that came to nothing at least 3 times in a row within the last 10 minutes. */
  handshakeFaults: HandshakeFaultInfo[]
}

/** Why a peer has left. */
export interface DetachInfo {
  reason: DetachReason
  text: string
  /** How long the tunnel was attached, in milliseconds. */
  duration: number
}

/** A channel that has peers. */
export interface ChannelInfo extends ChannelKey {
  /** Tunnels attached now. */
  peers: number
}

/** Tunnels of one kind: those of one route, or of several that share their channels, that were opened in the same way. */
export interface TunnelCount {
  scope: string
  protocol: string
  framing: PeerInfo['framing']
  httpVersion: HttpVersion
  /** Over the hub's life. */
  attached: number
  /** Now. */
  peers: number
}

/** Which peer to disconnect; without `scope` or `kind`, in every channel of that name. */
export interface PeerSelector {
  channel: string
  id: string
  scope?: string
  kind?: ChannelKey['kind']
}

/** What a hub counts, and how much there is now. */
export interface TrafficStats extends Counters {
  peers: number
  channels: number
  tunnels: TunnelCount[]
  /** WireGuard sessions that are known, each once for either side. */
  sessions: number
  /** Datagrams that wait for blocked sockets. */
  waiting: number
}
