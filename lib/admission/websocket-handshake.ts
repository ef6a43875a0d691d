import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyError, FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** What must hold for a WebSocket beyond what holds for any handshake, as pure functions of a request. */

export const WEBSOCKET_VERSION = '13'
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
/** 16 bytes in base64. */
const keyPattern = /^[A-Za-z0-9+/]{22}==$/

/**
 * The opening handshake (RFC 6455, section 4.2.1; over HTTP/2 there is no key, RFC 8441, section 5).
 * @returns what is wrong, or undefined
 */
export function checkOpeningHandshake (headers: IncomingHttpHeaders, hasKey: boolean): FastifyError | undefined {
  const version = headers['sec-websocket-version']
  if (version !== WEBSOCKET_VERSION) return new errors.FST_RELAY_WEBSOCKET_VERSION(printable(version ?? 'none'))
  if (hasKey && !keyPattern.test(headers['sec-websocket-key']!)) return new errors.FST_RELAY_WEBSOCKET_KEY()
}

/** What the server answers to a key (RFC 6455, section 4.2.2). */
export function acceptValueOf (key: string): string {
  return createHash('sha1').update(key + GUID).digest('base64')
}

interface OriginRequest extends Pick<FastifyRequest, 'protocol' | 'host'> {
  headers: IncomingHttpHeaders
}

/**
 * Whether the page that opens a WebSocket may do so: a browser sends the user's cookies along, whichever page asks
 * (RFC 6455, section 10.2). What is no browser sends no Origin.
 * @param origins those that are allowed; undefined: the one that the request is for
 * @returns what is wrong, or undefined
 */
export function checkOrigin ({ headers, protocol, host }: OriginRequest, origins: readonly string[] | undefined): FastifyError | undefined {
  const { origin } = headers
  if (origin === undefined) return
  const allowed = origins ?? [originOf(`${protocol}://${host}`)]
  const from = originOf(origin)
  if (from === undefined || !allowed.includes(from)) return new errors.FST_RELAY_ORIGIN_NOT_ALLOWED(printable(origin), printable(allowed.join(', ')))
}

/** The origin in one spelling (RFC 6454, section 6.1): without the scheme's own port. What is none, such as `null`, is equal to none. */
export function originOf (text: string): string | undefined {
  if (!URL.canParse(text)) return
  const { origin, href } = new URL(text)
  return origin !== 'null' && href === `${origin}/` ? origin : undefined
}
