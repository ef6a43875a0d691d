import type {
  ContextConfigDefault, FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, FastifyTypeProvider,
  FastifyTypeProviderDefault, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerBase, RawServerDefault,
  RouteGenericInterface, RouteShorthandOptions
} from 'fastify'
import type { ProtocolName } from '../admission/protocols.ts'
import type { FramingName } from '../framing/framing.ts'
import type { Identified } from './identified.ts'

/** The options of a relay route, besides Fastify's own route options. */
export interface RelayOptions<Request = FastifyRequest, Reply = FastifyReply, Instance = FastifyInstance> {
  /** Host names that this route accepts, compared with `request.hostname`. Default: any. */
  hosts?: readonly string[]
  /**
   * Origins whose pages may open WebSockets here, such as `https://app.example.com`. Default: the origin that the request
   * addresses. Non-browser clients send no Origin header, so this does not restrict them.
   */
  origins?: readonly string[]
  /** Upgrade tokens that this route accepts. Default: all. */
  protocols?: readonly ProtocolName[]
  /**
   * Framings that this route accepts under `Upgrade: spanza`. Default: all. WebSockets may carry datagrams if the list has a
   * framing other than `raw`, and a byte stream if it has `raw`.
   */
  framings?: readonly FramingName[]
  /** Routes with the same scope share their channels. Default: the route's full URL pattern and its constraints. */
  scope?: string
  /**
   * Returns the client's identity and channel. It runs after the hooks. If it throws, the client gets that error as the HTTP
   * response. `{}` leaves every part at its default. Any other value, undefined included, is refused with FST_RELAY_IDENTITY.
   */
  identify?: (this: Instance, request: Request) => Identified | Promise<Identified>
  /**
   * The address that tunnels of this route lead to, instead of the hub: `udp://host:port`, `tcp://host:port` or `unix:/path`.
   * UDP carries datagrams, so the client must ask for a framing. The others carry a bare stream. A function chooses the target
   * for each request, after the hooks. A client cannot choose the target unless that function lets it.
   */
  target?: string | ((this: Instance, request: Request) => string | Promise<string>)
  /**
   * Whether `Upgrade: websocket` with a `Sec-WebSocket-Key` opens a WebSocket. Default: true. With false, it opens the
   * HTTPUpgrade transport, with or without a key: versions of Xray after 26.3.27 send one.
   */
  webSockets?: boolean
  /**
   * Whether WebSockets may negotiate permessage-deflate (RFC 7692). Default: false, because encrypted data does not compress.
   * Over HTTP/1.1, the options of @fastify/websocket decide instead, if the app registered it.
   */
  perMessageDeflate?: boolean
  /** Sends a PROXY header of this version with the client's address to a `tcp:` or `unix:` target. Default: no header. */
  proxyProtocol?: 1 | 2
  /**
   * Declares that any client may open tunnels here. This silences the start-up warning about a route with neither a guarding
   * hook nor `identify`. Default: false.
   */
  open?: boolean
  /** Handles a GET that does not ask for an upgrade. Default: a 426 response. */
  plain?: (this: Instance, request: Request, reply: Reply) => unknown
}

/** `RelayOptions` together with the hooks and options of any Fastify route. */
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

/** The type of `fastify.relay`, modelled on Fastify's route shorthands. */
export interface RelayMethod<
  RawServer extends RawServerBase,
  RawRequest extends RawRequestDefaultExpression<RawServer>,
  RawReply extends RawReplyDefaultExpression<RawServer>,
  Logger extends FastifyBaseLogger,
  TypeProvider extends FastifyTypeProvider
> {
  /**
   * Defines a relay route: a GET route that accepts upgrades and attaches their tunnels to `fastify.relayHub`.
   * @throws FST_RELAY_OPTION for an option with an invalid value, or one that a relay route does not allow
   * @throws FST_RELAY_UNKNOWN_OPTION for a misspelled option
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
