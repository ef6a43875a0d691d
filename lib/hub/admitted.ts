import type { Framing } from '../framing/framing.ts'
import type { MessageReader } from '../tunnel/message-reader.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { HttpVersion } from '../util/http-version.ts'
import type { UdpSendFault } from '../util/udp-socket.ts'
import type { ChannelKey } from './hub-info.ts'

/** A target that exchanges datagrams with the tunnel. */
export interface DatagramTarget {
  readonly carries: 'datagrams'
  /** Starts receiving. `onError` gets network errors such as ECONNREFUSED; they do not close the target. */
  receive: (onDatagram: (datagram: Buffer) => void, onError: (code: string) => void) => void
  /** Sends a datagram and reports the result. The caller must not reuse the datagram's memory. */
  send: (datagram: Buffer, onSent: (fault: UdpSendFault | undefined) => void) => void
  close: () => void
}

/** A target that takes a byte stream. */
export interface StreamTarget {
  readonly carries: 'stream'
  readonly tunnel: Tunnel
  close: () => void
}

/** The target of a tunnel that does not go to other peers. It is connected, but nothing reads from it yet. */
export type ConnectedTarget = StreamTarget | DatagramTarget

/** What admission knows about a tunnel. */
export interface Admitted {
  channel: ChannelKey
  /** With an id, the identity outlives its tunnel. Without one, the id is random. */
  id: string | undefined
  /** The WireGuard public key, 32 bytes. */
  publicKey: Buffer | undefined
  /** The `context` that `identify` returned. For the app only. */
  context: unknown
  /** The client's address; undefined on a unix socket. */
  address: string | undefined
  /** The key for limits per client. Undefined if the client has no address. */
  client: string | undefined
  /** The id of the handshake request, for the log. */
  requestId?: string | undefined
  /** The upgrade token; over HTTP/2, the value of `:protocol`. */
  protocol: string
  httpVersion: HttpVersion
  /** Undefined for `raw`, and for WebSocket messages. */
  framing: Framing | undefined
  /** True if the relay can send keepalives on this protocol and expect an answer. */
  hasKeepalive: boolean
  /**
   * Hold bytes to the client until its first byte arrives or a short time passes.
   * Some clients lose bytes that follow the 101 immediately.
   */
  holdsOutput: boolean
  target?: ConnectedTarget | undefined
  /** Reads datagrams from the tunnel when there is no framing. */
  messages?: MessageReader | undefined
}
