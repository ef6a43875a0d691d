import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { subprotocols } from '../../admission/protocols.ts'
import { WEBSOCKET_VERSION } from '../../admission/websocket-handshake.ts'
import type { DatagramFraming } from '../../framing/framing.ts'
import { MAX_DATAGRAM_SIZE } from '../../framing/wireguard.ts'
import type { HttpVersionNumber } from '../../util/http-version.ts'
import type { ProxyProtocolVersion } from '../../util/proxy-header.ts'
import type { AnyConnectOptions, ClientProtocol, DatagramOptions, TlsOptions } from './connect-options.ts'
import { checkCreateConnection, checkLocalAddress, checkProxyProtocol, checkSignal } from './dial-options.ts'
import { checkHeaderFields, type HeaderFields } from './header-options.ts'
import { clientOptionError, integerOption } from './client-option-error.ts'
import { checkEarlyData, checkFramings, checkHttpVersion, checkProtocol } from './protocol-options.ts'
import { checkProxy, type ProxyPlan } from './proxy-options.ts'
import { checkHandshakeTimeout, checkKeepalive } from './time-options.ts'
import { checkTls, checkTlsContext } from './tls-options.ts'
import { checkHost, checkServername, checkUrl, withoutBrackets } from './url-options.ts'

/** The handshake of a WebSocket. */
export interface WebSocketPlan {
  /** The value of `Sec-WebSocket-Key`; undefined over HTTP/2, which has no such field. */
  readonly key: string | undefined
  readonly subprotocol: string
}

/** The options of one attempt: checked, with all defaults. */
export interface ConnectPlan {
  readonly httpVersion: HttpVersionNumber
  readonly protocol: ClientProtocol
  /** Given for a WebSocket. */
  readonly webSocket: WebSocketPlan | undefined
  readonly href: string
  readonly secure: boolean
  /** The URL's host, without brackets. */
  readonly hostname: string
  readonly port: number
  readonly path: string
  /** The value of `Host` or `:authority`. */
  readonly host: string
  /** All header fields of the request, in the order in which they are sent. */
  readonly headers: HeaderFields
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

/**
 * Checks the arguments of `connect` and works out what to send.
 * @throws FST_RELAY_CLIENT_OPTION naming the option and its value
 */
export function planConnect (url: string | URL, options: AnyConnectOptions): ConnectPlan {
  if (typeof options !== 'object' || options === null) throw clientOptionError('options', 'an object', options)
  const httpVersion = checkHttpVersion(options)
  const protocol = checkProtocol(options)
  const isWebSocket = protocol === 'websocket' && options.keyless !== true
  const { protocol: scheme, hostname, port, host, pathname, search, href } = checkUrl(url, protocol)
  const secure = scheme === 'https:' || scheme === 'wss:'
  const framings = checkFramings(options, isWebSocket)
  const hostHeader = options.host === undefined ? host : checkHost(options.host)
  // A tunnel of bytes has none of these options.
  const datagramOptions: DatagramOptions = framings === 'raw' ? {} : options as DatagramOptions
  const keepalive = checkKeepalive(datagramOptions)
  const createConnection = checkCreateConnection(options)
  const proxyProtocol = checkProxyProtocol(options)
  const earlyData = checkEarlyData(options, framings, httpVersion, isWebSocket)
  const signal = checkSignal(options)
  const destination = { secure, hostname: withoutBrackets(hostname), port: port === '' ? (secure ? 443 : 80) : Number(port) }
  const path = pathname + search
  const webSocket = isWebSocket ? planWebSocket(httpVersion, framings) : undefined
  const fields: HeaderFields = {
    ...(webSocket === undefined ? {} : webSocketFields(webSocket)),
    ...(framings === 'raw' || isWebSocket ? {} : { 'Spanza-Framing': framings.join(', ') }),
    ...checkHeaderFields(options.headers, options.token, httpVersion, isWebSocket)
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
    servername: checkServername(options.servername, hostHeader, destination.hostname),
    tls: checkTls(options, secure),
    createConnection,
    proxy: checkProxy(options, destination),
    proxyTls: checkTlsContext('proxyTls', options.proxyTls),
    localAddress: checkLocalAddress(options),
    proxyProtocol,
    signal,
    handshakeTimeout: checkHandshakeTimeout(options),
    framings,
    earlyData,
    maxPacketSize: integerOption('maxPacketSize', datagramOptions.maxPacketSize, MAX_DATAGRAM_SIZE, 1, MAX_DATAGRAM_SIZE),
    ...keepalive
  }
}

function planWebSocket (httpVersion: HttpVersionNumber, framings: ConnectPlan['framings']): WebSocketPlan {
  return {
    key: httpVersion === 1 ? randomBytes(16).toString('base64') : undefined,
    subprotocol: framings === 'raw' ? subprotocols.stream : subprotocols.datagrams
  }
}

function webSocketFields ({ key, subprotocol }: WebSocketPlan): HeaderFields {
  return {
    ...(key === undefined ? {} : { 'Sec-WebSocket-Key': key }),
    'Sec-WebSocket-Version': WEBSOCKET_VERSION,
    'Sec-WebSocket-Protocol': subprotocol
  }
}

/** The fields for HTTP/2: lower-case names, and one line each, because Node allows a second line for some names only. */
function http2Fields (fields: HeaderFields): Record<string, string> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => {
    const key = name.toLowerCase()
    return [key, typeof value === 'string' ? value : value.join(key === 'cookie' ? '; ' : ', ')]
  }))
}
