import type {
  FastifyBaseLogger, FastifyInstance, FastifyPluginCallback, FastifyTypeProvider, FastifyTypeProviderDefault,
  RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerBase, RawServerDefault
} from 'fastify'
import fp from 'fastify-plugin'
import { errors } from './errors.ts'
import { checkOptionNames } from './route/option-names.ts'
import { hubOptionsIn, type HubOptions } from './hub/hub-options.ts'
import { optionError } from './util/option-error.ts'
import { defineRelayRoute, markOf } from './route/define-relay-route.ts'
import type { RelayMethod, RelayRouteOptions } from './route/relay-options.ts'
import type { RelayHub } from './server/relay-hub.ts'
import { RelayServer } from './server/relay-server.ts'
import { StartUpWarnings } from './route/start-up-warnings.ts'

/** The plugin's options: the hub's options and, with `path`, the options of one relay route. */
export interface SpanzaRelayOptions extends HubOptions, RelayRouteOptions {
  /** Adds a relay route at this path. Without `path`, registering adds no route. */
  path?: string
}

/** One entry for each server, so that sibling scopes share it. */
const relayServers = new WeakMap<object, { server: RelayServer, warnings: StartUpWarnings }>()

const registerRelay: FastifyPluginCallback<SpanzaRelayOptions> = (fastify, options, done) => {
  try {
    register(fastify, options)
    done()
  } catch (error) {
    done(error as Error)
  }
}

function register (fastify: FastifyInstance, options: SpanzaRelayOptions & { prefix?: string }): void {
  const { path, prefix, ...rest } = options
  if (prefix !== undefined) throw new errors.FST_RELAY_PREFIX()
  checkOptionNames('the registration', rest)
  const hubOptions: HubOptions = {}
  for (const name of hubOptionsIn(rest)) {
    hubOptions[name] = rest[name]!
    delete rest[name]
  }
  let known = relayServers.get(fastify.server)
  if (known === undefined) {
    known = { server: new RelayServer(fastify, hubOptions), warnings: new StartUpWarnings(fastify) }
    relayServers.set(fastify.server, known)
  } else if (Object.keys(hubOptions).length > 0) {
    throw new errors.FST_RELAY_OPTIONS_TWICE(Object.keys(hubOptions).join(', '))
  }
  if (!fastify.hasDecorator('relayHub')) decorate(fastify, known.server, known.warnings)
  if (path !== undefined) fastify.relay(path, rest)
  else checkNothingIsLeft(rest)
}

/** Rejects any other option: without `path`, a route option or a misspelled one would have no effect. */
function checkNothingIsLeft ({ logLevel, logSerializers, ...rest }: SpanzaRelayOptions): void {
  const [name] = Object.keys(rest)
  if (name !== undefined) throw optionError(name, 'left out, or given with path: it belongs to a route', rest[name as keyof typeof rest])
}

/** Adds the decorators and hooks to a scope and to the scopes within it. */
function decorate (fastify: FastifyInstance, server: RelayServer, warnings: StartUpWarnings): void {
  server.guard(fastify)
  fastify.decorate('relayHub', server.relayHub)
  fastify.decorate('relay', function (this: FastifyInstance, path: string, options?: RelayRouteOptions) {
    defineRelayRoute(this, server, path, options)
    return this
  } as FastifyInstance['relay'])
  fastify.addHook('onRoute', function (this: FastifyInstance, route) {
    const { url, routePath, method, constraints } = route
    const mark = markOf(route)
    mark?.keep(route)
    if ([method].flat().includes('GET')) server.routes.add(url, constraints, mark !== undefined, routePath === '')
    if (mark !== undefined) warnings.add(this, route, mark)
  })
}

declare module 'fastify' {
  interface FastifyInstance<
    RawServer extends RawServerBase = RawServerDefault,
    RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
    RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
    Logger extends FastifyBaseLogger = FastifyBaseLogger,
    TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault
  > {
    relay: RelayMethod<RawServer, RawRequest, RawReply, Logger, TypeProvider>
    relayHub: RelayHub
  }
}

/** The plugin. Every registration on a server, in any scope, shares the server's hub. */
export const spanzaRelay = fp(registerRelay, { fastify: '5.x', name: 'fastify-spanza-relay' })

/**
 * Returns the relay server of `fastify`, or undefined if the plugin is not registered.
 * @internal
 */
export function relayServerOf ({ server }: FastifyInstance): RelayServer | undefined {
  return relayServers.get(server)?.server
}
