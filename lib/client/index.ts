/** The client, usable without Fastify. */
export { connect } from './connect.ts'
export { RelayConnection } from './connection/relay-connection.ts'
export { UdpSidecar } from './sidecar/sidecar.ts'
export { errors } from '../errors.ts'
export type { RelayErrorCode } from '../errors.ts'
export type { CloseReason } from '../tunnel/close-reasons.ts'
export type { DatagramFraming } from '../framing/framings.ts'
export type { NoticeName } from '../framing/notices.ts'
export type {
  ClientProtocol, ConnectOptions, DatagramOptions, HttpUpgradeOptions, RawConnectOptions, TlsOptions, TransportOptions
} from './connect-options.ts'
export type { SidecarProtocol } from './sidecar/protocol-choice.ts'
export type { AnsweredBy, RelayRefusedError } from './refusal.ts'
export type { LoopInfo } from './sidecar/route-loop.ts'
export type {
  ConnectionDropReason, ConnectionEnd, ConnectionEndReason, ConnectionNotice, ConnectionStats, RelayConnectionEvents
} from './connection/relay-connection.ts'
export type { SidecarDropReason, SidecarEndReason, SidecarEvents, SidecarOptions, SidecarStats, SidecarStop, TlsSource, TokenSource } from './sidecar/sidecar.ts'
export type { UdpDropReason } from './sidecar/udp-port.ts'
