import type { FastifyInstance, FastifyPluginAsync, RouteShorthandOptions } from 'fastify'
import { errors } from '../errors.ts'
import { EventBroadcast } from './event-broadcast.ts'
import { definePage } from './page-files.ts'
import { defineRoutes } from './routes.ts'

const guardNames = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const

/** Where the scope is, and the hooks that guard it: one or several of each, as of any route. */
export interface RelayAdminOptions extends Pick<RouteShorthandOptions, typeof guardNames[number]> {
  prefix?: string
  /** Registers without a guard among these options: for one in an outer scope, which cannot be seen from here; default false. */
  insecure?: boolean
}

/**
 * A scope of JSON routes that show and end what goes on in the hub, and a page for people that uses them. It belongs into
 * the scope of the relay or one within it.
 * @throws FST_RELAY_ADMIN_UNGUARDED, FST_RELAY_ADMIN_HUB
 */
const relayAdmin: FastifyPluginAsync<RelayAdminOptions> = async (fastify, options) => {
  if (!fastify.hasDecorator('relayHub')) throw new errors.FST_RELAY_ADMIN_HUB()
  const hasGuard = addGuards(fastify, options)
  if (!hasGuard && options.insecure !== true) throw new errors.FST_RELAY_ADMIN_UNGUARDED()

  const broadcast = new EventBroadcast(fastify.relayHub)
  // Before Fastify waits for the requests under way, which these never cease to be.
  fastify.addHook('preClose', async () => broadcast.close())
  defineRoutes(fastify, fastify.relayHub, broadcast)
  definePage(fastify)
}

/** @returns whether there are any */
function addGuards (fastify: FastifyInstance, options: RelayAdminOptions): boolean {
  let count = 0
  for (const name of guardNames) {
    for (const guard of [options[name] ?? []].flat()) {
      fastify.addHook(name as 'onRequest', guard as never)
      count++
    }
  }
  return count > 0
}

export default relayAdmin
