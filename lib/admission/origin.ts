import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyError, FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** The Origin check: it decides which pages may open a WebSocket, or change something through the admin scope. */

interface OriginRequest extends Pick<FastifyRequest, 'protocol' | 'host'> {
  headers: IncomingHttpHeaders
}

/**
 * Compares the Origin header with the allowed origins. A browser sends the user's cookies with a request from any page
 * (RFC 6455, section 10.2). Non-browser clients send no Origin header.
 * @param origins the allowed origins. Default: the origin that the request addresses.
 * @returns the foreign origin and the allowed ones, or undefined if the request is allowed
 */
export function findForeignOrigin ({ headers, protocol, host }: OriginRequest, origins?: readonly string[]): { origin: string, allowed: string } | undefined {
  const { origin } = headers
  if (origin === undefined) return
  const own = `${protocol}://${host}`
  const allowed = origins ?? [originOf(own) ?? own]
  const from = originOf(origin)
  if (from === undefined || !allowed.includes(from)) return { origin, allowed: allowed.join(', ') }
}

/**
 * Checks the origin of a page that opens a WebSocket.
 * @returns the error to refuse it with, or undefined
 */
export function checkOrigin (request: OriginRequest, origins: readonly string[] | undefined): FastifyError | undefined {
  const foreign = findForeignOrigin(request, origins)
  if (foreign !== undefined) return new errors.FST_RELAY_ORIGIN_NOT_ALLOWED(printable(foreign.origin), printable(foreign.allowed))
}

/** Returns an origin in canonical form (RFC 6454, section 6.1), without the default port. Undefined for other text, such as `null`. */
export function originOf (text: string): string | undefined {
  if (!URL.canParse(text)) return
  const { origin, href } = new URL(text)
  return origin !== 'null' && href === `${origin}/` ? origin : undefined
}
