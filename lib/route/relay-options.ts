import type {
  ContextConfigDefault, FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest, FastifySchema, FastifyTypeProvider,
  FastifyTypeProviderDefault, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerBase, RawServerDefault,
  RouteGenericInterface, RouteShorthandOptions
} from 'fastify'
import type { ProtocolName } from '../admission/protocols.ts'
import type { FramingName } from '../framing/framing.ts'
import type { Identified } from './identified.ts'

/** What a relay route has beyond Fastify's own route options. */
export interface RelayOptions<Request = FastifyRequest, Reply = FastifyReply, Instance = FastifyInstance> {
  /** Host names this route answers to, compared with `request.hostname`; default: any. */
  hosts?: readonly string[]
  /**
   * Origins whose pages may open WebSockets here, as `https://app.example.com`; default: the one that the request is for. What is no
   * browser sends none.
   */
  origins?: readonly string[]
  /** Upgrade tokens this route accepts; default: all. */
  protocols?: readonly ProtocolName[]
  /** Framings this route accepts under `Upgrade: spanza`; default: all. WebSockets carry datagrams where it has one for them, bytes where it has `raw`. */
  framings?: readonly FramingName[]
  /** Two routes with the same scope share their channels; default: the route's full URL pattern, and its constraints. */
  scope?: string
  /**
   * Who the client is and where it belongs; runs after the hooks. What it throws is the answer. Nothing, or anything that is no
   * such object, is refused with FST_RELAY_IDENTITY; `{}` leaves every part to its default.
   */
  identify?: (this: Instance, request: Request) => Identified | Promise<Identified>
  /**
   * Where the tunnels of this route go instead of the hub: `udp://host:port` (datagrams, so the client must ask for a
   * framing), `tcp://host:port` or `unix:/path` (a bare stream), or a function that chooses by the request, once the hooks
   * have run. A client has no say in it unless that function lets it.
   */
  target?: string | ((this: Instance, request: Request) => string | Promise<string>)
  /**
   * Whether `Upgrade: websocket` with a `Sec-WebSocket-Key` opens a WebSocket; default true. With false it is the HTTPUpgrade transport
   * with a key as without one: versions of Xray after 26.3.27 send one.
   */
  webSockets?: boolean
  /**
   * Whether WebSockets may agree on permessage-deflate (RFC 7692); default false: what is encrypted cannot be compressed. Over
   * HTTP/1.1, the options of @fastify/websocket decide where the app has registered it.
   */
  perMessageDeflate?: boolean
  /** Tells a `tcp:` or `unix:` target the client's address by a PROXY header of this version; default: none. */
  proxyProtocol?: 1 | 2
  /** Says that everybody may open tunnels here, so that nothing is logged about a route without a guarding hook and `identify`; default false. */
  open?: boolean
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
   * @throws FST_RELAY_OPTION for an option that is not allowed
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
