import { createServer as createHttpServer, type RequestListener, type Server as HttpServer, type ServerOptions as HttpServerOptions } from 'node:http'
import { createServer as createHttpsServer, type Server as HttpsServer, type ServerOptions as HttpsServerOptions } from 'node:https'
import { BlockList, isIP } from 'node:net'
import type { FastifyBaseLogger, FastifyServerFactoryHandler } from 'fastify'
import { canonicalAddress } from '../../admission/client-address.ts'
import { optionError } from '../../util/option-error.ts'
import { HeaderReader, type Settings } from './header-reader.ts'

/**
 * Accepts the PROXY protocol on an app's listener. Node passes each connection to HTTP or TLS through the event
 * `connection`, which users may emit themselves, as Node's documentation says. This module holds the event back until it
 * has read the header. Otherwise, the server is the one that Fastify would create.
 */

export interface ProxyProtocolOptions {
  /** The proxies: addresses, CIDRs, and `unix:` for any peer on a unix socket. Headers from other addresses are not read. */
  from: readonly string[]
  /**
   * Default true: connections without a header, or from an address outside `from`, are closed. With false they are
   * served unchanged. A proxy in `from` must then always send a header: otherwise the relay trusts one that the client sends.
   */
  required?: boolean
  /**
   * How long the header may take, in milliseconds, from 1 to 2147483647; default 5000. With `required: false`, the limit also
   * applies to the first bytes of a connection without a header.
   */
  timeout?: number
}

/** The server options that Fastify passes to a factory, with defaults filled in. */
interface FactoryOptions {
  http2?: boolean
  http?: HttpServerOptions
  https?: HttpsServerOptions | true | null
  keepAliveTimeout: number
  requestTimeout: number
  connectionTimeout: number
  maxRequestsPerSocket: number
  logger: FastifyBaseLogger
}

/** A value for Fastify's option `serverFactory`, with or without the option `https`. */
export type ProxyProtocolServerFactory =
  <RawServer extends HttpServer | HttpsServer = HttpServer>(handler: FastifyServerFactoryHandler<RawServer>, options: Record<string, unknown>) => RawServer

const UNIX = 'unix:'

/**
 * Creates a server factory for Fastify. Its servers read PROXY headers, so that `request.ip` is the client's address.
 * @throws FST_RELAY_OPTION if an option is invalid
 */
export function proxyProtocol (options: ProxyProtocolOptions): ProxyProtocolServerFactory {
  const settings = readOptions(options)
  return <RawServer extends HttpServer | HttpsServer>(handler: FastifyServerFactoryHandler<RawServer>, options: Record<string, unknown>) => {
    const factoryOptions = options as unknown as FactoryOptions
    const server = createServer(handler as RequestListener, factoryOptions)
    new HeaderReader(server, settings, factoryOptions.logger).install()
    return server as RawServer
  }
}

function readOptions ({ from, required = true, timeout = 5000 }: ProxyProtocolOptions): Settings {
  if (typeof required !== 'boolean') throw optionError('required', 'true or false', required)
  if (!Number.isInteger(timeout) || timeout < 1 || timeout >= 2 ** 31) throw optionError('timeout', `a whole number from 1 to ${2 ** 31 - 1}`, timeout)
  if (!Array.isArray(from) || from.length === 0) throw optionError('from', 'a list of addresses and CIDRs', from)
  const proxies = new BlockList()
  for (const entry of from) {
    if (entry !== UNIX) addProxy(proxies, entry)
  }
  const unixIsProxy = from.includes(UNIX)
  return {
    required,
    timeout,
    isProxy (server, { remoteAddress }) {
      if (typeof server.address() === 'string') return unixIsProxy
      const address = canonicalAddress(remoteAddress)
      return address !== undefined && proxies.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6')
    }
  }
}

function addProxy (proxies: BlockList, entry: unknown): void {
  const [, address = '', prefix] = /^([^/%]+)(?:\/(\d{1,3}))?$/.exec(String(entry)) ?? []
  const [type, bits] = isIP(address) === 4 ? ['ipv4', 32] as const : ['ipv6', 128] as const
  const length = Number(prefix ?? bits)
  if (isIP(address) === 0 || length > bits) throw optionError('from', `a list of addresses, CIDRs and "${UNIX}"`, entry)
  proxies.addSubnet(address, length, type)
}

/** Creates the server that Fastify would create without a factory. */
function createServer (handler: RequestListener, options: FactoryOptions): HttpServer | HttpsServer {
  if (options.http2 === true) throw optionError('http2', 'left out beside proxyProtocol, which makes HTTP/1.1 servers', true)
  const { http = {}, https } = options
  const server = https ? createHttpsServer(https === true ? {} : https, handler) : createHttpServer(http, handler)
  server.keepAliveTimeout = options.keepAliveTimeout
  server.requestTimeout = options.requestTimeout
  server.setTimeout(options.connectionTimeout)
  if (options.maxRequestsPerSocket > 0) server.maxRequestsPerSocket = options.maxRequestsPerSocket
  return server
}
