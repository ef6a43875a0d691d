import type { FramingName } from '../framing/framing.ts'
import type { DetachReason } from '../tunnel/close-reasons.ts'
import type { HttpVersion } from '../util/http-version.ts'
import type { Counters, DropReason } from './counters.ts'
import type { HandshakeFaultInfo, HandshakeInfo } from './packet/handshake-record.ts'

/** Types for inspecting a hub and selecting its peers. */

/** The key of a channel. Channels with different keys never exchange traffic. */
export interface ChannelKey {
  /** The route's URL pattern, or its `scope` option. */
  scope: string
  name: string
  /** `packet`: any number of peers exchange datagrams. `stream`: two tunnels are spliced. `target`: each tunnel has its own target. */
  kind: 'packet' | 'stream' | 'target'
}

/** A snapshot of a peer. */
export interface PeerInfo {
  id: string
  channel: ChannelKey
  address: string | undefined
  protocol: string
  httpVersion: HttpVersion
  /** `websocket`: each WebSocket message is a datagram. */
  framing: FramingName | 'websocket'
  /** In base64, as `wg pubkey` prints it. */
  publicKey: string | undefined
  context: unknown
  attachedAt: Date
  datagramsIn: number
  datagramsOut: number
  /** Tunnel bytes, including framing. */
  bytesIn: number
  bytesOut: number
  /** Dropped datagrams from or to this peer. */
  drops: number
  /** Drops by reason. Reasons that did not occur are absent. */
  dropsByReason: Partial<Record<DropReason, number>>
  /**
   * The peers this one has WireGuard sessions with, and the bytes of transport data sent to each.
   * Counting starts with the first session and ends when the last one expires.
   */
  sentTo: Array<{ id: string, bytes: number }>
  /** The last answered WireGuard handshake: the other peer and the time. Undefined if there was none. */
  lastHandshake: { id: string, at: Date } | undefined
  /** WireGuard handshakes with other peers of the channel, newest first. Covers the last 16 peers. */
  handshakes: HandshakeInfo[]
  /** Handshakes from this peer that failed at least 3 times in a row within the last 10 minutes. */
  handshakeFaults: HandshakeFaultInfo[]
}

/** Why a peer detached. */
export interface DetachInfo {
  reason: DetachReason
  text: string
  /** Time the tunnel was attached, in milliseconds. */
  duration: number
}

/** A non-empty channel. */
export interface ChannelInfo extends ChannelKey {
  /** Tunnels currently attached. */
  peers: number
}

/** Tunnels with the same scope, protocol, framing and HTTP version. */
export interface TunnelCount {
  scope: string
  protocol: string
  framing: PeerInfo['framing']
  httpVersion: HttpVersion
  /** Total since the hub was created. */
  attached: number
  /** Currently attached. */
  peers: number
}

/** Selects a peer to disconnect. Without `scope` or `kind`, it matches every channel of that name. */
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
