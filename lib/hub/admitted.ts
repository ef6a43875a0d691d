import type { Framing } from '../framing/framing.ts'
import type { MessageReader } from '../tunnel/message-reader.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { HttpVersion } from '../util/http-version.ts'
import type { UdpSendFault } from '../util/udp-socket.ts'
import type { ChannelKey } from './hub-info.ts'

/** A target that takes datagrams and sends some. */
export interface DatagramTarget {
  readonly carries: 'datagrams'
  /** Begins to receive; `onError` is told what the network reports, which is not the end. */
  receive: (onDatagram: (datagram: Buffer) => void, onError: (code: string) => void) => void
  /** Sends a datagram, whose memory must not be written to again, and tells what became of it. */
  send: (datagram: Buffer, onSent: (fault: UdpSendFault | undefined) => void) => void
  close: () => void
}

/** A target that is a stream of bytes. */
export interface StreamTarget {
  readonly carries: 'stream'
  readonly tunnel: Tunnel
  close: () => void
}

/** Where a tunnel leads instead of to other peers: connected, and not read yet. */
export type ConnectedTarget = StreamTarget | DatagramTarget

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
  /** The id of the request that the tunnel came with, for the log. */
  requestId?: string | undefined
  /** The upgrade token; over HTTP/2, what `:protocol` says. */
  protocol: string
  httpVersion: HttpVersion
  /** Undefined for `raw`, and where datagrams are the messages of a WebSocket. */
  framing: Framing | undefined
  /** Whether the protocol lets the relay send keepalives, and expect some sign of life. */
  hasKeepalive: boolean
  /** Bytes towards the client wait until its first one has come, or a moment has passed: there are clients that lose what follows the 101 at once. */
  holdsOutput: boolean
  target?: ConnectedTarget | undefined
  /** What brings the datagrams out of the tunnel where no framing does. */
  messages?: MessageReader | undefined
}
