/** The client, usable without Fastify. */
export { connect } from './connect.ts'
export { RelayConnection } from './relay-connection.ts'
export { UdpSidecar } from './sidecar.ts'
export { errors } from '../errors.ts'
export type { RelayErrorCode } from '../errors.ts'
export type { CloseReason } from '../tunnel/close-reasons.ts'
export type { NoticeName } from '../framing/notices.ts'
export type {
  ClientProtocol, ConnectOptions, DatagramFraming, DatagramOptions, HttpUpgradeOptions, RawConnectOptions, TlsOptions, TransportOptions
} from './options.ts'
export type { SidecarProtocol } from './protocol-choice.ts'
export type { AnsweredBy, RelayRefusedError } from './refusal.ts'
export type { LoopInfo } from './route-loop.ts'
export type {
  ConnectionDropReason, ConnectionEnd, ConnectionEndReason, ConnectionNotice, ConnectionStats, RelayConnectionEvents
} from './relay-connection.ts'
export type { SidecarDropReason, SidecarEndReason, SidecarEvents, SidecarOptions, SidecarStats, SidecarStop, TlsSource, TokenSource } from './sidecar.ts'
export type { UdpDropReason } from './udp-port.ts'
