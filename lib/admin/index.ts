import type { FastifyInstance, FastifyPluginAsync, RouteShorthandOptions } from 'fastify'
import { errors } from '../errors.ts'
import { EventBroadcast } from './event-broadcast.ts'
import { definePage } from './page-files.ts'
import { defineRoutes } from './routes.ts'

/** The hooks by which the scope can be guarded, in the order in which Fastify runs them. */
const guardNames = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const

/** The scope's prefix, and the hooks that guard it: one or several of each kind. */
export interface RelayAdminOptions extends Pick<RouteShorthandOptions, typeof guardNames[number]> {
  prefix?: string
  /** Registers without a guard among these options, for a guard in an outer scope, which is not visible from here; default false. */
  insecure?: boolean
}

/**
 * A scope of JSON routes that show the hub and disconnect peers, and a page that uses them. Register it in the relay's
 * scope, or in a scope inside it.
 * @throws FST_RELAY_ADMIN_UNGUARDED, FST_RELAY_ADMIN_HUB
 */
const relayAdmin: FastifyPluginAsync<RelayAdminOptions> = async (fastify, options) => {
  if (!fastify.hasDecorator('relayHub')) throw new errors.FST_RELAY_ADMIN_HUB()
  const hasGuard = addGuards(fastify, options)
  if (!hasGuard && options.insecure !== true) throw new errors.FST_RELAY_ADMIN_UNGUARDED()

  const broadcast = new EventBroadcast(fastify.relayHub)
  // Fastify then waits for pending requests, and event streams never end by themselves.
  fastify.addHook('preClose', async () => broadcast.close())
  defineRoutes(fastify, fastify.relayHub, broadcast)
  definePage(fastify)
}

/** @returns whether the options have any guard */
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
