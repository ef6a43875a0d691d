import type { FastifyRequest } from 'fastify'
import { findForeignOrigin } from '../admission/origin.ts'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/**
 * Lets a change pass that comes from a page of this origin, or from a non-browser client.
 * @throws FST_RELAY_ADMIN_ORIGIN
 */
export async function checkSameOrigin (request: FastifyRequest): Promise<void> {
  const site = request.headers['sec-fetch-site']
  // The browser itself has compared, with the URL that it knows: also where a proxy changes host and scheme on the way.
  if (site === 'same-origin') return
  const foreign = findForeignOrigin(request)
  if (site === undefined && foreign === undefined) return
  throw new errors.FST_RELAY_ADMIN_ORIGIN(`${request.protocol}://${request.host}`, printable(request.headers.origin ?? String(site)))
}
