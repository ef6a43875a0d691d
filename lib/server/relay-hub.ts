import type { EventEmitter } from 'node:events'
import type { ChannelInfo, DetachInfo, PeerInfo, PeerSelector, TrafficStats } from '../hub/hub-info.ts'
import type { HubOptions } from '../hub/hub-options.ts'
import type { HandshakeCounters } from './handshake-counters.ts'

/** `fastify.relayHub`: what an app may see and do. */

/** A handshake that was refused. */
export interface RefusalInfo {
  statusCode: number
  /** The code of the error: this package's, or that of what a hook of the app threw, at most 256 characters; undefined where there was none. */
  code: string | undefined
  /** Why, in words, with the limit where there was one, at most 256 characters; undefined where a hook of the app replied without an error. */
  message: string | undefined
  /** The client's address as far as it is known. */
  address: string | undefined
  /** The URL pattern of the route: what a client has put into its parameters may be a secret. */
  path: string
}

/** The events of a hub, with what their listeners are given. */
export interface HubEvents {
  attach: [peer: PeerInfo]
  detach: [peer: PeerInfo, info: DetachInfo]
  refuse: [refusal: RefusalInfo]
}

/** The counters, and how much there is now. */
export interface HubStats extends TrafficStats, HandshakeCounters {
  /** Connections that `proxyProtocol` has refused, by reason; empty where the server was not made by it. */
  refusedConnections: Record<string, number>
}

/** All channels of one Fastify server, and its handshakes. */
export interface RelayHub extends EventEmitter<HubEvents> {
  /** The options of the hub, defaults filled in. */
  readonly options: Readonly<Required<HubOptions>>
  /** Whether the hub takes no new tunnels because its server is being closed. */
  readonly isClosing: boolean
  /** All peers, in no order. */
  peers: () => PeerInfo[]
  /** Non-empty channels, in no order. */
  channels: () => ChannelInfo[]
  /** A copy of the counters; those of tunnels that live are included. */
  stats: () => HubStats
  /**
   * Closes the tunnels of a peer. Our client does not come back by itself after that.
   * @param text told to the peer
   * @returns how many tunnels were closed
   */
  disconnect: (selector: PeerSelector, text?: string) => number
}
