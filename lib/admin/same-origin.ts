import type { FastifyRequest } from 'fastify'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/**
 * Lets a change pass that no browser sends, or one from a page of this origin.
 * @throws FST_RELAY_ADMIN_ORIGIN
 */
export async function checkSameOrigin ({ headers, protocol, host }: FastifyRequest): Promise<void> {
  const site = headers['sec-fetch-site']
  // The browser itself has compared, with the URL that it knows: also where a proxy changes host and scheme on the way.
  if (site === 'same-origin') return
  const own = `${protocol}://${host}`
  if (site === undefined && (headers.origin === undefined || headers.origin === own)) return
  throw new errors.FST_RELAY_ADMIN_ORIGIN(own, printable(headers.origin ?? String(site)))
}
