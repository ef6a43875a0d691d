import cluster from 'node:cluster'
import type { FastifyInstance, RouteOptions } from 'fastify'
import { hooksOf } from '../internals/fastify-internals.ts'
import type { RelayRouteMark } from './define-relay-route.ts'
import { limitingHooks } from '../server/relay-server.ts'

/** Hooks that can refuse a client. */
const guards = ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const

interface RelayRouteFacts {
  fastify: FastifyInstance
  /** The route's full URL. */
  url: string
  /** Fastify reuses this object for a route's second URL. Other plugins may add hooks to it until the app is ready. */
  route: RouteOptions
  mark: RelayRouteMark
}

/** Logs warnings about misconfigured relay routes, once, when the app is ready. */
export class StartUpWarnings {
  readonly #relayRoutes: RelayRouteFacts[] = []

  constructor (fastify: FastifyInstance) {
    fastify.addHook('onReady', (done) => {
      this.#log(fastify)
      done()
    })
  }

  /** @param fastify the instance that the route belongs to */
  add (fastify: FastifyInstance, route: RouteOptions & { url: string }, mark: RelayRouteMark): void {
    this.#relayRoutes.push({ fastify, url: route.url, route, mark })
  }

  #log ({ log }: FastifyInstance): void {
    const unguarded = this.#relayRoutes.filter((facts) => !facts.mark.isSettled && !isGuarded(facts))
    if (unguarded.length > 0) {
      log.warn({ paths: unguarded.map(({ url }) => url) }, 'everybody may open tunnels on these relay routes, which have neither ' +
        'a guarding hook (onRequest, preParsing, preValidation, preHandler) nor identify: add one, or say open: true')
    }
    if (cluster.isWorker && this.#relayRoutes.some(({ mark }) => !mark.hasTarget)) {
      log.warn({ worker: cluster.worker?.id }, 'this process is one of several (node:cluster), and each has a hub of its own: peers of one ' +
        'channel that reach different processes never meet; see docs/several-processes.md')
    }
  }
}

function isGuarded ({ fastify, route, mark }: RelayRouteFacts): boolean {
  return guards.some((name) => {
    const ofInstance = hooksOf(fastify, name)
    // If this Fastify version hides its hooks, assume a guarding one.
    if (ofInstance === undefined) return true
    const hooks = [...ofInstance, ...[route[name] ?? []].flat()]
    return hooks.some((hook) => hook !== mark.ownHook && !limitingHooks.has(hook as object))
  })
}
