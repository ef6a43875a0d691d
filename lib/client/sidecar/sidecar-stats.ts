import { noConnectionStats, type ConnectionDropReason, type ConnectionStats } from '../connection/connection-stats.ts'
import type { ConnectionEndReason } from '../connection/connection-end.ts'
import type { UdpDropReason } from './udp-port.ts'

/** Why a datagram was dropped; `outage`: there was no connection, and none came back in time. */
export type SidecarDropReason = ConnectionDropReason | UdpDropReason | 'outage'

/** Why a connection is over; `drained`: the relay asked for a new connection. */
export type SidecarEndReason = ConnectionEndReason | 'drained'

/** Counters over all connections. `In` is from the relay, `Out` to the relay. Bytes are those of the datagrams, without framing. */
export interface SidecarStats {
  /** Whether there is a connection now. */
  connected: boolean
  /** Connections that were made. */
  connections: number
  /** How they ended. */
  ended: Partial<Record<SidecarEndReason, number>>
  /** Failed attempts, by the status of the answer, or else by the error's code. */
  failed: Record<string, number>
  datagramsIn: number
  datagramsOut: number
  bytesIn: number
  bytesOut: number
  /** Datagrams received from the local side, and sent to it. */
  udpDatagramsIn: number
  udpDatagramsOut: number
  drops: Record<SidecarDropReason, number>
}

export type SidecarCounters = Omit<SidecarStats, 'connected'>

/** The counters of a sidecar that has carried nothing yet. */
export function noSidecarCounters (): SidecarCounters {
  const { drops, ...traffic } = noConnectionStats()
  return {
    connections: 0,
    ended: {},
    // Without a prototype: the codes come from errors of any kind.
    failed: Object.create(null),
    ...traffic,
    udpDatagramsIn: 0,
    udpDatagramsOut: 0,
    drops: {
      ...drops,
      'not-loopback': 0,
      'no-return-address': 0,
      'udp-too-large': 0,
      'udp-queue-full': 0,
      'udp-error': 0,
      outage: 0
    }
  }
}

/** Adds a connection's counters. */
export function addStats (total: SidecarCounters, stats: ConnectionStats): void {
  total.datagramsIn += stats.datagramsIn
  total.datagramsOut += stats.datagramsOut
  total.bytesIn += stats.bytesIn
  total.bytesOut += stats.bytesOut
  for (const [reason, count] of Object.entries(stats.drops)) total.drops[reason as ConnectionDropReason] += count
}
