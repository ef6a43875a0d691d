import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { hubOptionsIn } from '../hub/hub-options.ts'
import type { RelayServer } from '../server/relay-server.ts'
import { optionError } from '../util/option-error.ts'
import { checkOptionNames } from './option-names.ts'
import type { RelayOptions, RelayRouteOptions } from './relay-options.ts'
import { RelayRoute } from './relay-route.ts'

/** Marks relay routes in their `config`, for the `onRoute` hook that sees their full URL, and the options that Fastify keeps. */
const kRelayRoute = Symbol('fastify-spanza-relay.route')

/** What the mark of a relay route tells. */
export interface RelayRouteMark {
  /** Takes the options that Fastify keeps of the route. */
  keep: (options: RouteOptions) => void
  /** The hook of the route that is the relay's own. */
  ownHook: unknown
  hasTarget: boolean
  /** Whether the app has said who may come in, or that everybody may. */
  isSettled: boolean
}

/** The mark of a route; undefined for one that is not a relay route. */
export function markOf ({ config }: { config?: unknown }): RelayRouteMark | undefined {
  return (config as { [kRelayRoute]?: RelayRouteMark } | undefined)?.[kRelayRoute]
}

/** Defines the route `path` in the scope `fastify`. */
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
    // A HEAD is not an upgrade, and would be the app's own to define.
    exposeHeadRoute: false,
    config: Object.assign({}, config, { [kRelayRoute]: mark }),
    onRequest: [ownHook, ...[onRequest ?? []].flat()],
    onError: [async (request, _reply, error) => route.noteError(request, error), ...[onError ?? []].flat()],
    handler: async (request, reply) => await route.handle(request, reply)
  })
  // Behind those that onRoute hooks of the app have added. Fastify reads the list later, in preReady.
  kept!.onSend = [...[kept!.onSend ?? []].flat(), (request, reply, payload, done) => {
    try {
      if (!route.open(request, reply)) done(null, payload)
    } catch (error) {
      done(error as Error)
    }
  }]
}
