import type { AddressInfo } from 'node:net'
import type { ConnectionEndReason } from '../connection/connection-end.ts'
import type { ConnectionNotice, RelayConnection } from '../connection/relay-connection.ts'
import type { LoopInfo } from './route-loop.ts'
import type { SidecarEndReason } from './sidecar-stats.ts'

/** Why a sidecar gave up: what the relay said when closing, or the error of the last attempt. */
export interface SidecarStop {
  /** For people. */
  text: string
  reason?: ConnectionEndReason
  error?: Error
}

/** The events of a sidecar, with what their listeners get. */
export interface SidecarEvents {
  /** The UDP port is bound. */
  listening: [address: AddressInfo]
  /** Connected to the relay. */
  connect: [info: { framing: RelayConnection['framing'], url: string }]
  /** Under `protocol: 'auto'`, something on the path lets only WebSockets through; `error` is what happened without one. */
  fallback: [info: { protocol: 'websocket', text: string, error: Error }]
  /** The first datagram on this connection that is larger than the relay takes, in bytes. All such datagrams are dropped. */
  oversized: [info: { size: number, limit: number }]
  /**
   * A connection ended, and the next attempt follows in `retryIn` ms; `drained`: the relay asked for it. With
   * `cutAfterSilence`, the last three were cut after that many ms without traffic: a shorter `keepaliveInterval` helps.
   */
  lost: [info: { reason: SidecarEndReason, text: string, retryIn: number, cutAfterSilence?: number }]
  /** An attempt failed, and the next one follows in `retryIn` ms. */
  retry: [info: { error: Error, text: string, retryIn: number }]
  /** The relay asks for a new connection after so many ms; the sidecar makes one. */
  drain: [info: { afterMs: number }]
  /**
   * The route to the relay, or to the proxy before it, leads into a WireGuard interface. If that interface uses this sidecar,
   * the sidecar cannot connect.
   */
  loop: [info: LoopInfo]
  /** The relay tells something about WireGuard's handshakes. */
  notice: [notice: ConnectionNotice]
  /** There will be no further attempt, and the UDP port is closed. Not emitted for `close()`. */
  stop: [info: SidecarStop]
}
