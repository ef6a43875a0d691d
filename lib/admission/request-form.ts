import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import type { FramingName } from '../framing/framing.ts'
import { printable } from '../util/printable.ts'

/** Admission as pure functions of a request. */

/**
 * What must hold before a request is routed: Node checks none of this on upgrades.
 * Sources: RFC 9112, sections 2.3, 3.2 and 6; RFC 9110, sections 7.2 and 7.8.
 * @param maxHeaders what Node keeps of a request's headers, 0 for all: the check cannot see what it left out
 * @returns the first thing that is wrong, or undefined
 */
export function checkForm (request: IncomingMessage, maxHeaders: number): FastifyError | undefined {
  if (maxHeaders > 0 && request.rawHeaders.length >= maxHeaders * 2) return new errors.FST_RELAY_HEADERS(maxHeaders)
  // With `insecureHTTPParser`, Node takes a blank before the colon for a part of the name, where others see the header without it.
  const names = request.rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.trim().toLowerCase())
  const hosts = names.filter((name) => name === 'host').length
  if (hosts !== 1) return new errors.FST_RELAY_HOST_HEADER(hosts === 0 ? 'none' : String(hosts))
  if (!request.url!.startsWith('/')) return new errors.FST_RELAY_REQUEST_TARGET()
  if (request.httpVersion !== '1.1') return new errors.FST_RELAY_HTTP_VERSION(request.httpVersion)
  if (names.includes('transfer-encoding')) return new errors.FST_RELAY_BODY('Transfer-Encoding')
  if (names.includes('content-length') && request.headers['content-length'] !== '0') return new errors.FST_RELAY_BODY('Content-Length')
}

/**
 * The same for an extended CONNECT, of which nghttp2 has checked the most.
 * Sources: RFC 9113, sections 8.1.1, 8.3.1 and 8.5; RFC 8441, section 4.
 */
export function checkConnectForm ({ url, headers }: Http2ServerRequest): FastifyError | undefined {
  const { host, ':authority': authority = host } = headers
  if (authority === undefined || authority === '') return new errors.FST_RELAY_HOST_HEADER('none')
  if (host !== undefined && host !== authority) return new errors.FST_RELAY_HOST_HEADER('two that differ')
  if (!url.startsWith('/')) return new errors.FST_RELAY_REQUEST_TARGET()
  if (headers['content-length'] !== undefined) return new errors.FST_RELAY_BODY('Content-Length')
}

/** The members of a comma-separated header value (RFC 9110, section 5.6.1), empty ones left out. */
export function listOf (value: string | string[] | undefined): string[] {
  if (value === undefined) return []
  return [value].flat().join(',').split(',').map((member) => member.trim()).filter((member) => member !== '')
}

/** The first protocol of the client's `Upgrade` header that is among `accepted`, in the spelling of `accepted`. */
export function chooseProtocol<Name extends string> (upgrade: string | undefined, accepted: readonly Name[]): Name | undefined {
  for (const token of listOf(upgrade)) {
    const protocol = accepted.find((name) => name.toLowerCase() === token.toLowerCase())
    if (protocol !== undefined) return protocol
  }
}

/**
 * The first framing of the client's `Spanza-Framing` header that is among `accepted`; `raw` where there is no such header.
 * @throws FST_RELAY_FRAMING when they have none in common
 */
export function chooseFraming (header: string | string[] | undefined, accepted: readonly FramingName[]): FramingName {
  const wanted = header === undefined ? ['raw'] : listOf(header).map((token) => token.toLowerCase())
  const framing = wanted.find((name): name is FramingName => (accepted as readonly string[]).includes(name))
  if (framing === undefined) throw new errors.FST_RELAY_FRAMING(printable(wanted.join(', ')), accepted.join(', '))
  return framing
}

/** Whether `hostname` is one of `hosts`; case, a port and a trailing dot are ignored. */
export function isHostAllowed (hostname: string, hosts: readonly string[]): boolean {
  const wanted = canonicalHost(hostname)
  return hosts.some((host) => canonicalHost(host) === wanted)
}

function canonicalHost (host: string): string {
  return host.toLowerCase().replace(/(?<=[^:]):\d+$/, '').replace(/\.$/, '')
}
