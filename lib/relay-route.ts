import type {
  ContextConfigDefault, FastifyBaseLogger, FastifyError, FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, FastifyTypeProvider,
  FastifyTypeProviderDefault, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerBase, RawServerDefault,
  RouteGenericInterface, RouteOptions, RouteShorthandOptions
} from 'fastify'
import { clientAddress, limitKey } from './admission/client-address.ts'
import { chooseProtocol, isHostAllowed } from './admission/handshake.ts'
import { readIdentity, type Identified } from './admission/identity.ts'
import { framingNames, protocolNames, protocols, type ProtocolName } from './admission/protocols.ts'
import { findInvalidHeaders, Handshake, retryAfter } from './entrance/http1.ts'
import { errors } from './errors.ts'
import type { FramingName } from './framing/framing.ts'
import type { Admitted } from './hub/peer.ts'
import { hubOptionsIn, optionError, readList } from './options.ts'
import type { RelayServer } from './relay-server.ts'

/** What a relay route has beyond Fastify's own route options. */
export interface RelayOptions<Request = FastifyRequest, Reply = FastifyReply, Instance = FastifyInstance> {
  /** Host names this route answers to, compared with `request.hostname`; default: any. */
  hosts?: readonly string[]
  /** Upgrade tokens this route accepts; default: all. */
  protocols?: readonly ProtocolName[]
  /** Framings this route accepts under `Upgrade: spanza`; default: all. */
  framings?: readonly FramingName[]
  /** Two routes with the same scope share their channels; default: the route's full URL pattern. */
  scope?: string
  /** Who the client is and where it belongs; runs after the hooks. What it throws is the answer. */
  identify?: (this: Instance, request: Request) => Identified | undefined | void | Promise<Identified | undefined | void>
  /** Answers a GET that asks for no upgrade; default: 426. */
  plain?: (this: Instance, request: Request, reply: Reply) => unknown
}

/** The options of a relay route: `RelayOptions`, and hooks and the like as for any route. */
export type RelayRouteOptions<
  RawServer extends RawServerBase = RawServerDefault,
  RawRequest extends RawRequestDefaultExpression<RawServer> = RawRequestDefaultExpression<RawServer>,
  RawReply extends RawReplyDefaultExpression<RawServer> = RawReplyDefaultExpression<RawServer>,
  RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
  ContextConfig = ContextConfigDefault,
  SchemaCompiler extends FastifySchema = FastifySchema,
  TypeProvider extends FastifyTypeProvider = FastifyTypeProviderDefault,
  Logger extends FastifyBaseLogger = FastifyBaseLogger
> =
  Omit<RouteShorthandOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>, 'exposeHeadRoute'> &
  RelayOptions<
    FastifyRequest<RouteGeneric, RawServer, RawRequest, SchemaCompiler, TypeProvider, ContextConfig, Logger>,
    FastifyReply<RouteGeneric, RawServer, RawRequest, RawReply, ContextConfig, SchemaCompiler, TypeProvider>,
    FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
  >

/** `fastify.relay`, typed as Fastify's own route shorthands are. */
export interface RelayMethod<
  RawServer extends RawServerBase,
  RawRequest extends RawRequestDefaultExpression<RawServer>,
  RawReply extends RawReplyDefaultExpression<RawServer>,
  Logger extends FastifyBaseLogger,
  TypeProvider extends FastifyTypeProvider
> {
  /**
   * Defines a relay route: a GET route that takes upgrades and attaches their tunnels to `fastify.relayHub`.
   * @throws FST_RELAY_OPTION for an option that is not allowed, FST_RELAY_SERVER on a server without HTTP/1.1
   */
  <
    RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
    ContextConfig = ContextConfigDefault,
    const SchemaCompiler extends FastifySchema = FastifySchema
  >(
    path: string,
    options?: RelayRouteOptions<RawServer, RawRequest, RawReply, RouteGeneric, ContextConfig, SchemaCompiler, TypeProvider, Logger>
  ): FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>
}

/** Marks relay routes in their `config`, for the `onRoute` hook that sees their full URL. */
export const kRelayRoute = Symbol('fastify-spanza-relay.route')

/** Defines the route `path` in the scope `fastify`. */
export function defineRelayRoute (fastify: FastifyInstance, server: RelayServer, path: string, options: RelayRouteOptions = {}): void {
  checkServer(fastify)
  const [misplaced] = hubOptionsIn(options)
  if (misplaced !== undefined) throw optionError(misplaced, 'given when registering: it belongs to the hub', options[misplaced as keyof typeof options])
  const { hosts, protocols: tokens, framings, scope, identify, plain, onRequest, config, ...routeOptions } = options
  const route = new RelayRoute(fastify, server, { hosts, tokens, framings, scope, identify, plain })
  fastify.route({
    ...routeOptions as Omit<RouteOptions, 'method' | 'url' | 'handler'>,
    method: 'GET',
    url: path,
    // A HEAD is not an upgrade, and would be the app's own to define.
    exposeHeadRoute: false,
    config: { ...config, [kRelayRoute]: true },
    onRequest: [async (request, reply) => route.checkRequest(request, reply), ...[onRequest ?? []].flat()],
    handler: async (request, reply) => await route.handle(request, reply)
  })
}

function checkServer (fastify: FastifyInstance): void {
  const { http2, https } = fastify.initialConfig as { http2?: boolean, https?: { allowHTTP1?: boolean } | boolean }
  const allowsHttp1 = typeof https === 'object' && https.allowHTTP1 === true
  if (http2 === true && !allowsHttp1) throw new errors.FST_RELAY_SERVER('this one speaks HTTP/2 only, set https.allowHTTP1')
}

interface RouteSettings {
  hosts: readonly string[] | undefined
  tokens: readonly ProtocolName[] | undefined
  framings: readonly FramingName[] | undefined
  scope: string | undefined
  identify: RelayOptions['identify'] | undefined
  plain: RelayOptions['plain'] | undefined
}

/** Admission on one relay route. */
class RelayRoute {
  readonly #fastify: FastifyInstance
  readonly #server: RelayServer
  readonly #hosts: readonly string[] | undefined
  readonly #protocols: readonly ProtocolName[]
  readonly #framings: readonly FramingName[]
  readonly #scope: string | undefined
  readonly #identify: RelayOptions['identify'] | undefined
  readonly #plain: RelayOptions['plain'] | undefined

  constructor (fastify: FastifyInstance, server: RelayServer, { hosts, tokens, framings, scope, identify, plain }: RouteSettings) {
    if (hosts !== undefined && !(Array.isArray(hosts) && hosts.length > 0 && hosts.every((host) => typeof host === 'string'))) {
      throw optionError('hosts', 'a list of host names', hosts)
    }
    if (scope !== undefined && typeof scope !== 'string') throw optionError('scope', 'a string', scope)
    if (identify !== undefined && typeof identify !== 'function') throw optionError('identify', 'a function', identify)
    if (plain !== undefined && typeof plain !== 'function') throw optionError('plain', 'a function', plain)
    this.#protocols = readList('protocols', tokens, protocolNames)
    this.#framings = readList('framings', framings, framingNames)
    this.#fastify = fastify
    this.#server = server
    this.#hosts = hosts
    this.#scope = scope
    this.#identify = identify
    this.#plain = plain
  }

  /** What is checked before the app's own hooks of the route. */
  checkRequest (request: FastifyRequest, reply: FastifyReply): void {
    this.#refusing(request, reply, () => {
      const isUpgrade = Handshake.of(request.raw) !== undefined
      if (!isUpgrade && this.#plain !== undefined) return
      if (!isUpgrade) throw new errors.FST_RELAY_UPGRADE_REQUIRED(this.#protocols.join(', '))
      if (this.#protocolOf(request) === undefined) {
        throw new errors.FST_RELAY_PROTOCOL(request.headers.upgrade ?? '', this.#protocols.join(', '))
      }
      if (this.#hosts !== undefined && !isHostAllowed(request.hostname, this.#hosts)) {
        throw new errors.FST_RELAY_HOST_NOT_ALLOWED(request.hostname)
      }
      clientAddress(request.ip)
    })
  }

  async handle (request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const handshake = Handshake.of(request.raw)
    if (handshake === undefined) return await this.#plain!.call(this.#fastify, request, reply)
    // While a hook or `identify` ran, the deadline may have answered, or the client may have left.
    if (!handshake.isOpen) return reply.hijack()
    const protocol = this.#protocolOf(request)!
    const agreement = this.#refusing(request, reply, () =>
      protocols[protocol](request.headers, this.#framings, this.#server.hub.options.maxPacketSize))
    const identified = await this.#identify?.call(this.#fastify, request)
    if (!handshake.isOpen) return reply.hijack()
    this.#refusing(request, reply, () => {
      const { id, channel, publicKey, context } = readIdentity(identified)
      const address = clientAddress(request.ip)
      const admitted: Admitted = {
        channel: {
          scope: this.#scope ?? request.routeOptions.url!,
          name: channel ?? channelName(request.params as Record<string, unknown>),
          kind: agreement.framing === undefined ? 'stream' : 'packet'
        },
        id,
        publicKey,
        context,
        address,
        client: address && limitKey(address),
        protocol,
        framing: agreement.framing,
        hasKeepalive: agreement.hasKeepalive
      }
      const [invalid] = findInvalidHeaders(reply.getHeaders())
      if (invalid !== undefined) throw new errors.FST_RELAY_ANSWER_HEADER(invalid)
      this.#server.hub.checkRoom(admitted)
      this.#checkProxy(request, address)
      const tunnel = handshake.accept({ Upgrade: protocol, ...agreement.answerHeaders }, reply.getHeaders())
      reply.hijack()
      this.#server.hub.attach(admitted, tunnel)
    })
  }

  #protocolOf (request: FastifyRequest): ProtocolName | undefined {
    return chooseProtocol(request.headers.upgrade, this.#protocols)
  }

  /** Runs a step of admission; an error of ours gets the headers that belong to its answer, and is counted by its code. */
  #refusing<Result> (request: FastifyRequest, reply: FastifyReply, step: () => Result): Result {
    try {
      return step()
    } catch (error) {
      const { code, statusCode } = error as FastifyError
      Handshake.of(request.raw)?.note(error as FastifyError)
      for (const name of findInvalidHeaders(reply.getHeaders())) reply.removeHeader(name)
      reply.headers(retryAfter(statusCode!))
      const asksForUpgrade = code === 'FST_RELAY_UPGRADE_REQUIRED' || code === 'FST_RELAY_PROTOCOL'
      // RFC 9110, section 7.8: who sends Upgrade also sends it as a connection option.
      if (asksForUpgrade) reply.header('upgrade', this.#protocols.join(', '))
      reply.header('connection', asksForUpgrade ? 'close, upgrade' : 'close')
      throw error
    }
  }

  #checkProxy (request: FastifyRequest, address: string | undefined): void {
    const isForwarded = request.headers['x-forwarded-for'] !== undefined || request.headers.forwarded !== undefined
    if (!this.#server.proxyCheck.seems(address, isForwarded)) return
    this.#fastify.log.warn({ address }, 'every relay tunnel comes from one address, and says that it was forwarded: ' +
      'set trustProxy, or limits per client address will meet all clients together')
  }
}

/** The route's decoded parameters as one name. A slash within one is encoded, so that no value can look like two. */
function channelName (params: Record<string, unknown>): string {
  // A schema may have made numbers of them.
  return Object.values(params).map((value) => String(value).replace(/[%/]/g, encodeURIComponent)).join('/')
}
