import { randomBytes } from 'node:crypto'
import { validateHeaderName, validateHeaderValue } from 'node:http'
import { isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { createSecureContext, type ConnectionOptions } from 'node:tls'
import { subprotocols } from '../admission/protocols.ts'
import { WEBSOCKET_VERSION } from '../admission/websocket-handshake.ts'
import { datagramFramings, type DatagramFraming } from '../framing/framings.ts'
import { httpVersionNumbers, type HttpVersionNumber } from '../util/http-version.ts'
import type { ProxyProtocolVersion } from '../util/proxy-header.ts'
import { MAX_DATAGRAM_SIZE } from '../framing/wireguard.ts'
import { optionError } from './option-error.ts'
import { checkProxy, type ProxyPlan } from './transport/proxy-options.ts'

export { optionError }

/** What `Upgrade`, or `:protocol`, asks for. */
export type ClientProtocol = 'spanza' | 'websocket'

/** What of Node's TLS options can be given; the rest follows from the URL, `host` and `servername`. */
export type TlsOptions = Pick<ConnectionOptions,
  'ca' | 'cert' | 'key' | 'pfx' | 'passphrase' | 'crl' | 'rejectUnauthorized' | 'checkServerIdentity' |
  'ciphers' | 'ecdhCurve' | 'sigalgs' | 'minVersion' | 'maxVersion'>

/** How to reach a relay, with any framing. */
export interface TransportOptions {
  /**
   * 1 for HTTP/1.1 and its `Upgrade`, 2 for HTTP/2 and its extended CONNECT (RFC 8441). Default: 1. With 2, all tunnels of equal settings share a connection for as long as there are any: equal are the origin,
   * `host`, `servername`, `tls` (by value), `createConnection` (the same function), `proxy`, `proxyTls`, `localAddress`,
   * `proxyProtocol`, `keepaliveInterval` and `keepaliveTimeout`, by which that connection is watched as well. An `http:` URL is
   * spoken to without asking ("prior knowledge"), for `https:` ALPN must choose it: nothing falls back to HTTP/1.1.
   */
  httpVersion?: HttpVersionNumber
  /**
   * What to send in `Upgrade`, or `:protocol`: `'spanza'` by default. `'websocket'` is a WebSocket (RFC 6455; over HTTP/2
   * RFC 8441), for proxies that let only those through: each message a datagram, or with `framings: 'raw'` a part of a
   * stream, which then has no half-close.
   */
  protocol?: ClientProtocol
  /**
   * With `'websocket'`, `true` sends no `Sec-WebSocket-Key`: the HTTPUpgrade transport of Xray and sing-box, a bare stream
   * behind the 101 unless `framings` lists some. Over HTTP/1.1 only. Default: false.
   */
  keyless?: boolean
  /**
   * Further header fields of the request; names are sent in the case given, a list as one line for each value. HTTP/2
   * knows lower case only, and a list goes out as one line. Not `Host`, `Connection`, `Upgrade`, `Spanza-Framing`, `Sec-WebSocket-Key` and those of a body; not the other
   * `Sec-WebSocket-…` of a WebSocket.
   */
  headers?: Record<string, string | readonly string[]>
  /** Sent as `Authorization: Bearer …`. With an `http:` URL everybody on the way can read it. */
  token?: string
  /** The Host header, a name with or without a port, and with it the default of `servername`. Default: the URL's. */
  host?: string
  /** The name that TLS asks for (SNI) and checks the certificate against. Default: the name in `host`, or the URL's. */
  servername?: string
  /** For `https:` only, and not together with `createConnection`. `ca` stands in place of the built-in list. */
  tls?: TlsOptions
  /**
   * Gives the connection to speak HTTP on, connected or connecting, or a promise of it, in place of TCP or TLS to the URL's
   * host. With an `https:` URL too it is used as it is: TLS, and ALPN for HTTP/2, are then its own affair. Called once an
   * attempt, with `httpVersion: 2` once for each connection that tunnels share. A connection that comes after the attempt
   * has failed is destroyed.
   */
  createConnection?: () => Duplex | Promise<Duplex>
  /**
   * An HTTP proxy on the way, which is asked by CONNECT (RFC 9110, section 9.3.6), for `http:` URLs too: an `http:` or `https:`
   * URL, with user name and password for Basic authentication; or `'env'` for the one that HTTPS_PROXY, HTTP_PROXY,
   * ALL_PROXY and NO_PROXY name. Default: false, as for Node's own clients: a library that read the environment could be led
   * astray by variables that are meant for other parts of its process. The command reads it. Not with `createConnection`.
   */
  proxy?: string | URL | false
  /** TLS options for an `https:` proxy; those in `tls` are for the relay alone. */
  proxyTls?: TlsOptions
  /**
   * The address of this machine to connect from. The relay, or the proxy, is then reached over the same IP version. It
   * chooses no route by itself: where that depends on the source address, a rule of the system's does.
   */
  localAddress?: string
  /**
   * Version of a PROXY header to send before anything else, also before TLS, with the addresses of this connection's
   * two ends: for a server that demands one. Not together with `createConnection`.
   */
  proxyProtocol?: ProxyProtocolVersion
  /** Gives up connecting: the promise rejects with the signal's reason. Of no effect once connected. */
  signal?: AbortSignal
  /** For everything from the name's resolution to the relay's answer: 1 to 2147483647 ms, default 10000. */
  handshakeTimeout?: number
}

/** What belongs to a tunnel of datagrams. */
export interface DatagramOptions extends TransportOptions {
  /** What to offer, the preferred one first. Default: `['wg', 'len16']`. A WebSocket has none: its messages are datagrams. */
  framings?: readonly DatagramFraming[]
  /** Received datagrams above this many bytes are skipped and counted: 1 to 65535, default 65535. */
  maxPacketSize?: number
  /**
   * Idle time after which a keepalive is sent, give or take a tenth: 1 to 2147483647 ms, default 25000. With `wg` it is a ping,
   * and one is sent as well when something was sent and nothing came back for 2 s: without an answer within 3 s the tunnel is `lost`.
   */
  keepaliveInterval?: number
  /** Time without a byte from the relay after which the tunnel is closed: more than `keepaliveInterval`, default 75000 ms. */
  keepaliveTimeout?: number
}

/** Options of `connect` for a tunnel of datagrams. With `keyless` the framings must be given: its default is `'raw'`. */
export type ConnectOptions = DatagramOptions & ({ protocol?: 'spanza' } | { protocol: 'websocket', keyless?: false } | { framings: readonly DatagramFraming[] })

interface RawOptions extends TransportOptions {
  /**
   * Sent right behind the request, without waiting for the 101; with 0 bytes, later writes do not wait either. It is
   * not copied. `connect` says what becomes of a refusal. Over HTTP/1.1, and not for a WebSocket.
   */
  earlyData?: Uint8Array
}

/** Options of `connect` for a tunnel of bytes. */
export interface RawConnectOptions extends RawOptions {
  framings: 'raw'
}

/** Options of `connect` for a tunnel of bytes by the HTTPUpgrade transport. */
export interface HttpUpgradeOptions extends RawOptions {
  httpVersion?: 1
  protocol: 'websocket'
  keyless: true
  framings?: 'raw'
}

/** The handshake of a WebSocket. */
export interface WebSocketPlan {
  /** What was sent in `Sec-WebSocket-Key`; over HTTP/2 there is none. */
  readonly key: string | undefined
  readonly subprotocol: string
}

/** The options of one attempt, checked, with all defaults. */
export interface ConnectPlan {
  readonly httpVersion: HttpVersionNumber
  readonly protocol: ClientProtocol
  /** Given for a WebSocket. */
  readonly webSocket: WebSocketPlan | undefined
  readonly href: string
  readonly secure: boolean
  readonly hostname: string
  readonly port: number
  readonly path: string
  /** What `Host` or `:authority` says. */
  readonly host: string
  /** All header fields of the request, in the order they are sent. */
  readonly headers: Record<string, string | readonly string[]>
  readonly servername: string | undefined
  readonly tls: TlsOptions
  readonly createConnection: (() => Duplex | Promise<Duplex>) | undefined
  readonly proxy: ProxyPlan | undefined
  readonly proxyTls: TlsOptions
  readonly localAddress: string | undefined
  readonly proxyProtocol: ProxyProtocolVersion | undefined
  readonly signal: AbortSignal | undefined
  readonly handshakeTimeout: number
  readonly framings: 'raw' | readonly DatagramFraming[]
  readonly earlyData: Uint8Array | undefined
  readonly maxPacketSize: number
  readonly keepaliveInterval: number
  readonly keepaliveTimeout: number
}

const DEFAULT_HANDSHAKE_TIMEOUT_MS = 10_000
const DEFAULT_KEEPALIVE_INTERVAL_MS = 25_000
const DEFAULT_KEEPALIVE_TIMEOUT_MS = 75_000

/** For messages. */
export const quotedFramings = datagramFramings.map((name) => `'${name}'`).join(' and ')

/** The longest time that Node's timers keep, in milliseconds. */
export const MAX_TIMER_MS = 0x7fffffff

/** Header fields that the handshake itself writes, or that would give the request a body, and what takes their place. */
const RESERVED_HEADERS = new Map([
  ['host', 'the option host'],
  ['connection', 'nothing: the handshake needs its own'],
  ['upgrade', 'nothing: the handshake needs its own'],
  ['spanza-framing', 'the option framings'],
  ['sec-websocket-key', "protocol 'websocket', which makes one for each attempt"],
  ['content-length', 'nothing: the request has no body'],
  ['transfer-encoding', 'nothing: the request has no body'],
  ['trailer', 'nothing: the request has no body'],
  ['te', 'nothing: the request has no body'],
  ['expect', 'nothing: the request has no body']
])

/** Header fields that a WebSocket's handshake writes as well. */
const WEBSOCKET_HEADERS = ['sec-websocket-version', 'sec-websocket-protocol', 'sec-websocket-extensions']

/** Header fields of a connection, which HTTP/2 does not have (RFC 9113, section 8.2.2). */
const HTTP1_HEADERS = ['keep-alive', 'proxy-connection', 'http2-settings']

/** An integer option in a range, or its default. */
export function integerOption (name: string, value: unknown, fallback: number, min: number, max: number): number {
  if (value === undefined) return fallback
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw optionError(name, `an integer from ${min} to ${max}`, value)
  }
  return value as number
}

/**
 * Checks the arguments of `connect` and works out what to send.
 * @throws FST_RELAY_CLIENT_OPTION naming the option and its value
 */
export function planConnect (url: string | URL, options: DatagramOptions | RawConnectOptions | HttpUpgradeOptions): ConnectPlan {
  if (typeof options !== 'object' || options === null) throw optionError('options', 'an object', options)
  const httpVersion = checkHttpVersion(options)
  const protocol = checkProtocol(options)
  const { protocol: scheme, hostname, port, host, pathname, search, href } = checkUrl(url, protocol)
  const secure = scheme === 'https:' || scheme === 'wss:'
  const isWebSocket = protocol === 'websocket' && options.keyless !== true
  if (isWebSocket && options.framings !== undefined && options.framings !== 'raw') {
    throw optionError('framings', "'raw' or absent with protocol 'websocket': its messages are datagrams (keyless: true takes framings)", options.framings)
  }
  const framings = checkFramings(options.framings ?? (options.keyless === true ? 'raw' : datagramFramings))
  const bareHostname = withoutBrackets(hostname)
  const hostHeader = options.host === undefined ? host : checkHost(options.host)
  const datagramOptions: DatagramOptions = framings === 'raw' ? {} : options as DatagramOptions
  const keepaliveInterval = integerOption('keepaliveInterval', datagramOptions.keepaliveInterval, DEFAULT_KEEPALIVE_INTERVAL_MS, 1, MAX_TIMER_MS)
  const keepaliveTimeout = integerOption('keepaliveTimeout', datagramOptions.keepaliveTimeout, DEFAULT_KEEPALIVE_TIMEOUT_MS, 1, MAX_TIMER_MS)
  if (keepaliveTimeout <= keepaliveInterval) {
    throw optionError('keepaliveTimeout', `more than keepaliveInterval (${keepaliveInterval})`, keepaliveTimeout)
  }
  if (options.createConnection !== undefined && typeof options.createConnection !== 'function') {
    throw optionError('createConnection', 'a function', options.createConnection)
  }
  const { proxyProtocol } = options
  if (proxyProtocol !== undefined) {
    if (proxyProtocol !== 1 && proxyProtocol !== 2) throw optionError('proxyProtocol', '1 or 2', proxyProtocol)
    if (options.createConnection !== undefined) {
      throw optionError('proxyProtocol', 'absent with createConnection, which sends the header itself', proxyProtocol)
    }
  }
  const destination = { secure, hostname: bareHostname, port: port === '' ? (secure ? 443 : 80) : Number(port) }
  const { earlyData } = options as RawConnectOptions
  if (earlyData !== undefined) {
    if (!(earlyData instanceof Uint8Array)) throw optionError('earlyData', 'a Buffer', typeof earlyData)
    if (framings !== 'raw') throw optionError('earlyData', 'absent with framings: it is for a tunnel of bytes', 'given')
    if (httpVersion === 2) throw optionError('earlyData', 'absent with httpVersion 2', 'given')
    if (isWebSocket) throw optionError('earlyData', 'absent with a WebSocket: it is for bare tunnels', 'given')
  }
  if (options.signal !== undefined && !(options.signal instanceof AbortSignal)) {
    throw optionError('signal', 'an AbortSignal', options.signal)
  }
  const path = pathname + search
  const webSocket = isWebSocket ? planWebSocket(httpVersion, framings) : undefined
  const fields = {
    ...(webSocket === undefined ? {} : webSocketFields(webSocket)),
    ...(framings === 'raw' || isWebSocket ? {} : { 'Spanza-Framing': framings.join(', ') }),
    ...checkHeaders(options.headers, options.token, httpVersion, isWebSocket)
  }
  return {
    httpVersion,
    protocol,
    webSocket,
    href,
    ...destination,
    path,
    host: hostHeader,
    headers: httpVersion === 1
      ? { Host: hostHeader, Connection: 'Upgrade', Upgrade: protocol, ...fields }
      : {
          ':method': 'CONNECT',
          ':protocol': protocol,
          ':scheme': secure ? 'https' : 'http',
          ':authority': hostHeader,
          ':path': path,
          ...http2Fields(fields)
        },
    servername: checkServername(options.servername, hostHeader, bareHostname),
    tls: checkTls(options, secure),
    createConnection: options.createConnection,
    proxy: checkProxy(options, destination),
    proxyTls: checkTlsContext('proxyTls', options.proxyTls),
    localAddress: checkLocalAddress(options),
    proxyProtocol,
    signal: options.signal,
    handshakeTimeout: integerOption('handshakeTimeout', options.handshakeTimeout, DEFAULT_HANDSHAKE_TIMEOUT_MS, 1, MAX_TIMER_MS),
    framings,
    earlyData,
    maxPacketSize: integerOption('maxPacketSize', datagramOptions.maxPacketSize, MAX_DATAGRAM_SIZE, 1, MAX_DATAGRAM_SIZE),
    keepaliveInterval,
    keepaliveTimeout
  }
}

function planWebSocket (httpVersion: HttpVersionNumber, framings: ConnectPlan['framings']): WebSocketPlan {
  return {
    key: httpVersion === 1 ? randomBytes(16).toString('base64') : undefined,
    subprotocol: framings === 'raw' ? subprotocols.stream : subprotocols.datagrams
  }
}

function webSocketFields ({ key, subprotocol }: WebSocketPlan): Record<string, string> {
  return {
    ...(key === undefined ? {} : { 'Sec-WebSocket-Key': key }),
    'Sec-WebSocket-Version': WEBSOCKET_VERSION,
    'Sec-WebSocket-Protocol': subprotocol
  }
}

function checkHttpVersion ({ httpVersion = 1, keyless }: TransportOptions): HttpVersionNumber {
  if (!httpVersionNumbers.includes(httpVersion)) throw optionError('httpVersion', httpVersionNumbers.join(' or '), httpVersion)
  if (httpVersion === 2 && keyless === true) {
    throw optionError('httpVersion', "1 with protocol 'websocket' and keyless: that transport is made of HTTP/1.1", httpVersion)
  }
  return httpVersion
}

function checkProtocol ({ protocol = 'spanza', keyless }: TransportOptions): ClientProtocol {
  if (protocol !== 'spanza' && protocol !== 'websocket') throw optionError('protocol', "'spanza' or 'websocket'", protocol)
  if (keyless !== undefined && typeof keyless !== 'boolean') throw optionError('keyless', 'true or false', keyless)
  if (protocol !== 'websocket' && keyless === true) throw optionError('keyless', "absent without protocol 'websocket'", keyless)
  return protocol
}

function checkUrl (value: string | URL, protocol: ClientProtocol): URL {
  const schemes = protocol === 'websocket' ? ['http:', 'https:', 'ws:', 'wss:'] : ['http:', 'https:']
  const expected = protocol === 'websocket' ? 'an http:, https:, ws: or wss: URL' : 'an http: or https: URL'
  let url
  try {
    url = new URL(value)
  } catch {
    throw optionError('url', expected, value)
  }
  if (url.username !== '' || url.password !== '') {
    url.username = url.password = ''
    throw optionError('url', 'without user name and password (give a token or headers)', `${url.href}, which had them`)
  }
  if (!schemes.includes(url.protocol)) throw optionError('url', expected, url.href)
  return url
}

function checkFramings (value: unknown): 'raw' | readonly DatagramFraming[] {
  if (value === 'raw') return value
  const valid = Array.isArray(value) && value.length > 0 && new Set(value).size === value.length &&
    value.every((name) => datagramFramings.includes(name))
  if (!valid) throw optionError('framings', `'raw', or a list of ${quotedFramings}, each at most once`, value)
  return [...value]
}

function checkHost (value: unknown): string {
  if (typeof value === 'string' && /^[^\s/\\?#@]+$/.test(value) && URL.canParse(`http://${value}`)) return value
  throw optionError('host', 'a host name with or without a port', value)
}

function checkServername (value: unknown, hostHeader: string, hostname: string): string | undefined {
  if (value === undefined) {
    const fromHost = withoutBrackets(new URL(`http://${hostHeader}`).hostname)
    // TLS asks for names only; with an address the certificate is checked against the address connected to.
    if (isIP(fromHost) === 0) return fromHost
    return isIP(hostname) === 0 ? hostname : undefined
  }
  if (typeof value === 'string' && /^[\w.-]+$/.test(value) && isIP(value) === 0) return value
  throw optionError('servername', 'a host name, without a port and no address', value)
}

function checkTls (options: TransportOptions, secure: boolean): TlsOptions {
  const { tls } = options
  if (tls === undefined) return {}
  if (options.createConnection !== undefined) throw optionError('tls', 'absent with createConnection, which does TLS itself', 'given')
  if (!secure) throw optionError('tls', 'absent with an http: URL', 'given')
  return checkTlsContext('tls', tls)
}

function checkTlsContext (name: string, tls: TlsOptions | undefined): TlsOptions {
  if (tls === undefined) return {}
  // The value is never shown: it may hold a private key.
  if (typeof tls !== 'object' || tls === null) throw optionError(name, 'an object', typeof tls)
  try {
    createSecureContext(tls)
  } catch (error) {
    throw optionError(name, 'what Node can make a TLS context of', (error as Error).message)
  }
  return { ...tls }
}

function checkLocalAddress ({ localAddress, createConnection }: TransportOptions): string | undefined {
  if (localAddress === undefined) return
  if (typeof localAddress !== 'string' || isIP(localAddress) === 0) throw optionError('localAddress', 'an IP address of this machine', localAddress)
  if (createConnection !== undefined) throw optionError('localAddress', 'absent with createConnection, which connects itself', localAddress)
  return localAddress
}

/** Why a token cannot be a header's value, without showing it. */
function faultOfToken (token: string): string {
  if (!/[\r\n]/.test(token)) return 'one with characters that no header may have'
  return /[\r\n]/.test(token.trim()) ? 'one with a line break in the middle' : 'one with a line break at an end: trim it'
}

function checkHeaders (headers: unknown, token: unknown, httpVersion: HttpVersionNumber, isWebSocket: boolean): Record<string, string | readonly string[]> {
  // Without a prototype: the names come from outside.
  const checked: Record<string, string | readonly string[]> = Object.create(null)
  const seen = new Set<string>()
  if (token !== undefined) {
    // Never the token itself in a message.
    if (typeof token !== 'string' || token === '') throw optionError('token', 'a string that is not empty', typeof token)
    if (!isValidHeaderValue(token)) throw optionError('token', 'printable', faultOfToken(token))
    checked['Authorization'] = `Bearer ${token}`
    seen.add('authorization')
  }
  if (headers === undefined) return checked
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) throw optionError('headers', 'an object', headers)
  for (const [name, value] of Object.entries(headers)) {
    const key = name.toLowerCase()
    const instead = isWebSocket && WEBSOCKET_HEADERS.includes(key) ? 'nothing: the handshake needs its own' : RESERVED_HEADERS.get(key)
    if (instead !== undefined) throw optionError(`headers['${name}']`, `absent; use ${instead}`, 'given')
    if (httpVersion === 2 && HTTP1_HEADERS.includes(key)) throw optionError(`headers['${name}']`, 'absent over HTTP/2', 'given')
    if (seen.has(key)) {
      throw optionError(`headers['${name}']`, key === 'authorization' && token !== undefined ? 'absent with a token' : 'given once', 'given twice')
    }
    seen.add(key)
    try {
      validateHeaderName(name)
    } catch {
      throw optionError('headers', 'an object of valid header names', name)
    }
    const values: readonly unknown[] = Array.isArray(value) ? value : [value]
    // The value may be a secret as well.
    if (values.length === 0 || !values.every((line) => isValidHeaderValue(line))) {
      throw optionError(`headers['${name}']`, 'a string, or a list of strings, that a header may have', typeof value)
    }
    checked[name] = value as string | readonly string[]
  }
  return checked
}

/** As HTTP/2 has them: in lower case, and one line each, as Node allows a second one for some names only. */
function http2Fields (fields: Record<string, string | readonly string[]>): Record<string, string> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => {
    const key = name.toLowerCase()
    return [key, typeof value === 'string' ? value : value.join(key === 'cookie' ? '; ' : ', ')]
  }))
}

/** Whether a header field can have this value (RFC 9110, section 5.5). */
export function isValidHeaderValue (value: unknown): boolean {
  if (typeof value !== 'string') return false
  try {
    validateHeaderValue('name', value)
    return true
  } catch {
    return false
  }
}

function withoutBrackets (hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}
