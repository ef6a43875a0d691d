import type { EventEmitter } from 'node:events'
import type { ChannelInfo, DetachInfo, PeerInfo, PeerSelector, TrafficStats } from '../hub/hub-info.ts'
import type { HubOptions } from '../hub/hub-options.ts'
import type { HandshakeCounters } from './handshake-counters.ts'

/** The public interface of `fastify.relayHub`. */

/** A handshake that was refused. */
export interface RefusalInfo {
  statusCode: number
  /** The code of the relay's error, or of the error that a hook threw, at most 256 characters. Undefined without one. */
  code: string | undefined
  /** The error message, at most 256 characters. Undefined if a hook of the app replied without an error. */
  message: string | undefined
  /** The client's address, if known. */
  address: string | undefined
  /** The URL pattern of the route, not the URL: its parameters may hold a secret. */
  path: string
}

/** The events of a hub and the arguments of their listeners. */
export interface HubEvents {
  attach: [peer: PeerInfo]
  detach: [peer: PeerInfo, info: DetachInfo]
  refuse: [refusal: RefusalInfo]
}

/** Counters and current values. */
export interface HubStats extends TrafficStats, HandshakeCounters {
  /** Connections that `proxyProtocol` refused, by reason. Empty for a server that it did not create. */
  refusedConnections: Record<string, number>
}

/** The channels and handshakes of one Fastify server. */
export interface RelayHub extends EventEmitter<HubEvents> {
  /** The options of the hub, including defaults. */
  readonly options: Readonly<Required<HubOptions>>
  /** True if the hub refuses new tunnels because its server is closing. */
  readonly isClosing: boolean
  /** All peers, in no order. */
  peers: () => PeerInfo[]
  /** Non-empty channels, in no order. */
  channels: () => ChannelInfo[]
  /** Returns a copy of the counters, including those of open tunnels. */
  stats: () => HubStats
  /**
   * Closes the tunnels of a peer. A spanza client does not reconnect by itself after that.
   * @param text the text sent to the peer
   * @returns the number of closed tunnels
   */
  disconnect: (selector: PeerSelector, text?: string) => number
}
