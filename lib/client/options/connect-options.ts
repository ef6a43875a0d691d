import type { Duplex } from 'node:stream'
import type { ConnectionOptions } from 'node:tls'
import type { DatagramFraming } from '../../framing/framing.ts'
import type { HttpVersionNumber } from '../../util/http-version.ts'
import type { ProxyProtocolVersion } from '../../util/proxy-header.ts'

/** The token that `Upgrade`, or `:protocol` over HTTP/2, asks for. */
export type ClientProtocol = 'spanza' | 'websocket'

/** The TLS options of Node that can be given. The rest follows from the URL, `host` and `servername`. */
export type TlsOptions = Pick<ConnectionOptions,
  'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'crl' | 'rejectUnauthorized' | 'checkServerIdentity' |
  'ciphers' | 'ecdhCurve' | 'sigalgs' | 'minVersion' | 'maxVersion'>

/** How to reach a relay, with any framing. */
export interface TransportOptions {
  /**
   * 1 for HTTP/1.1 and its `Upgrade`, 2 for HTTP/2 and its extended CONNECT (RFC 8441). Default: 1.
   *
   * With 2, tunnels of equal settings share one connection, which stays open as long as one of them does. These settings
   * count: the origin, `host`, `servername`, `tls` (by value), `createConnection` (the same function), `proxy`, `proxyTls`,
   * `localAddress`, `proxyProtocol`, `keepaliveInterval` and `keepaliveTimeout`. The last two apply to that connection as well.
   * For `https:`, ALPN must choose HTTP/2; for `http:`, the client assumes it ("prior knowledge"). It never falls back to
   * HTTP/1.1.
   */
  httpVersion?: HttpVersionNumber
  /**
   * The token to send in `Upgrade`, or `:protocol`. `'spanza'` is the default. `'websocket'` opens a WebSocket (RFC 6455; over
   * HTTP/2 RFC 8441), for proxies that let only WebSockets through: each message is a datagram, or with `framings: 'raw'` a
   * part of a stream. That stream has no half-close.
   */
  protocol?: ClientProtocol
  /**
   * With `'websocket'`, `true` sends no `Sec-WebSocket-Key`. This is the HTTPUpgrade transport of Xray and sing-box: a bare
   * stream after the 101, unless `framings` lists some. HTTP/1.1 only. Default: false.
   */
  keyless?: boolean
  /**
   * Further header fields of the request. Names are sent in the case given, and a list as one line for each value. HTTP/2 has
   * lower-case names only, and sends a list as one line. Not allowed: `Host`, `Connection`, `Upgrade`, `Spanza-Framing`,
   * `Sec-WebSocket-Key` and the fields of a body; with a WebSocket also the other `Sec-WebSocket-…`.
   */
  headers?: Record<string, string | readonly string[]>
  /** Sent as `Authorization: Bearer …`. With an `http:` URL, everyone on the path can read it. */
  token?: string
  /** The Host header: a name with or without a port. It is also the default of `servername`. Default: the URL's host. */
  host?: string
  /** The name that TLS sends (SNI) and checks the certificate against. Default: the name in `host`, or the URL's. */
  servername?: string
  /** For `https:` only, and not together with `createConnection`. `ca` replaces the built-in list. */
  tls?: TlsOptions
  /**
   * Returns the connection to speak HTTP on, connected or connecting, or a promise of one. It replaces TCP or TLS to the URL's
   * host. An `https:` URL changes nothing: the function does TLS itself, and ALPN for HTTP/2. It is called once for each
   * attempt; with `httpVersion: 2` once for each shared connection. A connection that arrives after the attempt has failed is
   * destroyed.
   */
  createConnection?: () => Duplex | Promise<Duplex>
  /**
   * An HTTP proxy, which is asked by CONNECT (RFC 9110, section 9.3.6), for `http:` URLs too. Give an `http:` or `https:` URL,
   * with user name and password for Basic authentication; or `'env'` for the proxy that HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
   * NO_PROXY name. Not together with `createConnection`. Default: false, as in Node's own clients, because those variables may
   * be meant for other parts of the process. The command `spanza` does read them.
   */
  proxy?: string | URL | false
  /** TLS options for an `https:` proxy. Those in `tls` are for the relay alone. */
  proxyTls?: TlsOptions
  /**
   * The address of this machine to connect from. The relay, or the proxy, is then reached over the same IP version. It selects
   * no route by itself: where the route depends on the source address, a routing rule of the system does that.
   */
  localAddress?: string
  /**
   * Version of the PROXY header to send before anything else, also before TLS, with the addresses of both ends of this
   * connection. For servers that require one. Not together with `createConnection`.
   */
  proxyProtocol?: ProxyProtocolVersion
  /** Aborts connecting: the promise rejects with the signal's reason. It has no effect once connected. */
  signal?: AbortSignal
  /** For everything from resolving the name to the relay's answer: 1 to 2147483647 ms, default 10000. */
  handshakeTimeout?: number
}

/** Options of a tunnel of datagrams. */
export interface DatagramOptions extends TransportOptions {
  /** The framings to offer, the preferred one first. Default: `['wg', 'len16']`. A WebSocket has none: its messages are datagrams. */
  framings?: readonly DatagramFraming[]
  /** Received datagrams above this many bytes are skipped and counted: 1 to 65535, default 65535. */
  maxPacketSize?: number
  /**
   * Idle time after which a keepalive is sent, give or take a tenth: 1 to 2147483647 ms, default 25000. With `wg` it is a ping,
   * and one is also sent when something was sent and nothing came back for 2 s. Without an answer within 3 s the tunnel is `lost`.
   */
  keepaliveInterval?: number
  /** Time without a byte from the relay after which the tunnel is closed: more than `keepaliveInterval`, default 75000 ms. */
  keepaliveTimeout?: number
}

/** Options of `connect` for a tunnel of datagrams. With `keyless`, give the framings: its default is `'raw'`. */
export type ConnectOptions = DatagramOptions & ({ protocol?: 'spanza' } | { protocol: 'websocket', keyless?: false } | { framings: readonly DatagramFraming[] })

/** What the options for tunnels of bytes have in common. */
interface RawOptions extends TransportOptions {
  /**
   * Sent right behind the request, without waiting for the 101. With 0 bytes, later writes do not wait either. It is
   * not copied. For what happens when the relay refuses, see `connect`. HTTP/1.1 only, and not for a WebSocket.
   */
  earlyData?: Uint8Array
}

/** Options of `connect` for a tunnel of bytes. */
export interface RawConnectOptions extends RawOptions {
  framings: 'raw'
}

/** Options of `connect` for a tunnel of bytes over the HTTPUpgrade transport. */
export interface HttpUpgradeOptions extends RawOptions {
  httpVersion?: 1
  protocol: 'websocket'
  keyless: true
  framings?: 'raw'
}

/** The options of any call of `connect`. */
export type AnyConnectOptions = DatagramOptions | RawConnectOptions | HttpUpgradeOptions
