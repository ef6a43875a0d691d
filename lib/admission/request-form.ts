import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import type { FramingName } from '../framing/framing.ts'
import { printable } from '../util/printable.ts'

/** Pure functions that check a request and choose its protocol and framing. */

/**
 * Checks the form of an upgrade request before it is routed. Node checks none of this on upgrades.
 * Sources: RFC 9112, sections 2.3, 3.2 and 6; RFC 9110, sections 7.2 and 7.8.
 * @param maxHeaders the number of headers that Node keeps, or 0 for no limit. This check cannot see headers that Node drops, so
 *   it refuses a request that reaches the limit.
 * @returns an error for the first fault, or undefined
 */
export function checkForm (request: IncomingMessage, maxHeaders: number): FastifyError | undefined {
  if (maxHeaders > 0 && request.rawHeaders.length >= maxHeaders * 2) return new errors.FST_RELAY_HEADERS(maxHeaders)
  // With `insecureHTTPParser`, Node keeps a space before the colon as part of the name. Other parsers drop the space.
  const names = request.rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.trim().toLowerCase())
  const hosts = names.filter((name) => name === 'host').length
  if (hosts !== 1) return new errors.FST_RELAY_HOST_HEADER(hosts === 0 ? 'none' : String(hosts))
  if (!request.url!.startsWith('/')) return new errors.FST_RELAY_REQUEST_TARGET()
  if (request.httpVersion !== '1.1') return new errors.FST_RELAY_HTTP_VERSION(request.httpVersion)
  if (names.includes('transfer-encoding')) return new errors.FST_RELAY_BODY('Transfer-Encoding')
  if (names.includes('content-length') && request.headers['content-length'] !== '0') return new errors.FST_RELAY_BODY('Content-Length')
}

/**
 * Checks the form of an extended CONNECT request. nghttp2 has checked most of it already.
 * Sources: RFC 9113, sections 8.1.1, 8.3.1 and 8.5; RFC 8441, section 4.
 */
export function checkConnectForm ({ url, headers }: Http2ServerRequest): FastifyError | undefined {
  const { host, ':authority': authority = host } = headers
  if (authority === undefined || authority === '') return new errors.FST_RELAY_HOST_HEADER('none')
  if (host !== undefined && host !== authority) return new errors.FST_RELAY_HOST_HEADER('two that differ')
  if (!url.startsWith('/')) return new errors.FST_RELAY_REQUEST_TARGET()
  if (headers['content-length'] !== undefined) return new errors.FST_RELAY_BODY('Content-Length')
}

/** Returns the non-empty members of a comma-separated header value (RFC 9110, section 5.6.1). */
export function listOf (value: string | string[] | undefined): string[] {
  if (value === undefined) return []
  return [value].flat().join(',').split(',').map((member) => member.trim()).filter((member) => member !== '')
}

/** Returns the first protocol in the client's `Upgrade` header that is in `accepted`, spelled as there. Case is ignored. */
export function chooseProtocol<Name extends string> (upgrade: string | undefined, accepted: readonly Name[]): Name | undefined {
  for (const token of listOf(upgrade)) {
    const protocol = accepted.find((name) => name.toLowerCase() === token.toLowerCase())
    if (protocol !== undefined) return protocol
  }
}

/**
 * Returns the first framing in the client's `Spanza-Framing` header that is in `accepted`. Without the header, the client asks
 * for `raw`.
 * @throws FST_RELAY_FRAMING if `accepted` has none of the client's framings
 */
export function chooseFraming (header: string | string[] | undefined, accepted: readonly FramingName[]): FramingName {
  const wanted = header === undefined ? ['raw'] : listOf(header).map((token) => token.toLowerCase())
  const framing = wanted.find((name): name is FramingName => (accepted as readonly string[]).includes(name))
  if (framing === undefined) throw new errors.FST_RELAY_FRAMING(printable(wanted.join(', ')), accepted.join(', '))
  return framing
}

/** Returns true if `hostname` is in `hosts`. Case, a port and a trailing dot are ignored. */
export function isHostAllowed (hostname: string, hosts: readonly string[]): boolean {
  const wanted = canonicalHost(hostname)
  return hosts.some((host) => canonicalHost(host) === wanted)
}

function canonicalHost (host: string): string {
  return host.toLowerCase().replace(/(?<=[^:]):\d+$/, '').replace(/\.$/, '')
}
