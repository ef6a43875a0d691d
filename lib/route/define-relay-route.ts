import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { hubOptionsIn } from '../hub/hub-options.ts'
import type { RelayServer } from '../server/relay-server.ts'
import { optionError } from '../util/option-error.ts'
import { checkOptionNames } from './option-names.ts'
import type { RelayOptions, RelayRouteOptions } from './relay-options.ts'
import { RelayRoute } from './relay-route.ts'

/** Marks relay routes in their `config`. The `onRoute` hook reads it: it sees the full URL and the options that Fastify keeps. */
const kRelayRoute = Symbol('fastify-spanza-relay.route')

/** The mark of a relay route. */
export interface RelayRouteMark {
  /** Receives the options object that Fastify keeps for the route. */
  keep: (options: RouteOptions) => void
  /** The relay's own `onRequest` hook of the route. */
  ownHook: unknown
  hasTarget: boolean
  /** True if the app set `identify` or `open: true`. */
  isSettled: boolean
}

/** Returns the mark of a relay route, or undefined for any other route. */
export function markOf ({ config }: { config?: unknown }): RelayRouteMark | undefined {
  return (config as { [kRelayRoute]?: RelayRouteMark } | undefined)?.[kRelayRoute]
}

/**
 * Defines the relay route `path` in the scope `fastify`.
 * @throws FST_RELAY_OPTION, FST_RELAY_UNKNOWN_OPTION
 */
export function defineRelayRoute (fastify: FastifyInstance, server: RelayServer, path: string, options: RelayRouteOptions = {}): void {
  checkOptionNames('a relay route', options)
  const [misplaced] = hubOptionsIn(options)
  if (misplaced !== undefined) throw optionError(misplaced, 'given when registering: it belongs to the hub', options[misplaced as keyof typeof options])
  const { hosts, origins, protocols, framings, scope, identify, target, webSockets, perMessageDeflate, proxyProtocol, open, plain, onRequest, onError, config, ...routeOptions } = options
  let kept: RouteOptions | undefined
  const route = new RelayRoute(
    fastify, server, { hosts, origins, protocols, framings, scope, identify, target, webSockets, perMessageDeflate, proxyProtocol, open, plain } as RelayOptions, options.constraints)
  const ownHook = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => route.checkRequest(request, reply)
  const mark: RelayRouteMark = { keep: (options) => { kept = options }, ownHook, hasTarget: target !== undefined, isSettled: open === true || identify !== undefined }
  server.http2?.announce()
  fastify.route({
    ...routeOptions as Omit<RouteOptions, 'method' | 'url' | 'handler'>,
    method: server.http2 === undefined ? 'GET' : ['GET', 'CONNECT'],
    url: path,
    // A HEAD request cannot be an upgrade. The app may define its own HEAD route.
    exposeHeadRoute: false,
    config: Object.assign({}, config, { [kRelayRoute]: mark }),
    onRequest: [ownHook, ...[onRequest ?? []].flat()],
    onError: [async (request, _reply, error) => route.noteError(request, error), ...[onError ?? []].flat()],
    handler: async (request, reply) => await route.handle(request, reply)
  })
  // Runs after hooks that the app's onRoute hooks added. Fastify reads the list later, in preReady.
  kept!.onSend = [...[kept!.onSend ?? []].flat(), (request, reply, payload, done) => {
    try {
      if (!route.open(request, reply)) done(null, payload)
    } catch (error) {
      done(error as Error)
    }
  }]
}
