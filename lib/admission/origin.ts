import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyError, FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** The Origin rule: which page may open a WebSocket, or ask the admin scope for a change. */

interface OriginRequest extends Pick<FastifyRequest, 'protocol' | 'host'> {
  headers: IncomingHttpHeaders
}

/**
 * Compares the page that asks with the origins that may: a browser sends the user's cookies along, whichever page asks
 * (RFC 6455, section 10.2). Non-browser clients send no Origin header.
 * @param origins default: the one that the request is for
 * @returns what was compared where it is not allowed, else undefined
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
 * The rule for pages that open a WebSocket.
 * @returns what is wrong, or undefined
 */
export function checkOrigin (request: OriginRequest, origins: readonly string[] | undefined): FastifyError | undefined {
  const foreign = findForeignOrigin(request, origins)
  if (foreign !== undefined) return new errors.FST_RELAY_ORIGIN_NOT_ALLOWED(printable(foreign.origin), printable(foreign.allowed))
}

/** The origin in one spelling (RFC 6454, section 6.1): without the scheme's own port. What is none, such as `null`, is equal to none. */
export function originOf (text: string): string | undefined {
  if (!URL.canParse(text)) return
  const { origin, href } = new URL(text)
  return origin !== 'null' && href === `${origin}/` ? origin : undefined
}
