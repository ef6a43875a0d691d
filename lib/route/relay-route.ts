import { Http2ServerRequest } from 'node:http2'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { clientAddress, limitKey } from '../admission/client-address.ts'
import { checkOrigin, originOf } from '../admission/origin.ts'
import { agreeOnWebSocket, protocolNames, protocols, type Agreement, type ProtocolName } from '../admission/protocols.ts'
import { chooseProtocol, isHostAllowed } from '../admission/request-form.ts'
import { acceptValueOf, checkOpeningHandshake, WEBSOCKET_VERSION } from '../admission/websocket-handshake.ts'
import { findInvalidHeaders, Handshake, retryAfter } from '../entrance/handshake.ts'
import { offerUpgrade } from '../entrance/http1/http1-handshake.ts'
import { errors, isRelayError } from '../errors.ts'
import type { FramingName } from '../framing/framing.ts'
import { framingNames } from '../framing/framings.ts'
import { canOpenOnStreams } from '../internals/ws-internals.ts'
import { MAX_DATAGRAM_SIZE } from '../framing/wireguard.ts'
import type { Admitted } from '../hub/admitted.ts'
import type { RelayServer } from '../server/relay-server.ts'
import { framingsFor, RouteTarget } from '../target/route-target.ts'
import type { Target } from '../target/target.ts'
import { closeCodes, closeWebSocket } from '../tunnel/websocket/websocket-ending.ts'
import { WebSocketMessages } from '../tunnel/websocket/websocket-messages.ts'
import { MAX_STREAM_MESSAGE, WebSocketStream } from '../tunnel/websocket/websocket-stream.ts'
import { WebSocketTunnel } from '../tunnel/websocket/websocket-tunnel.ts'
import { optionError, readList } from '../util/option-error.ts'
import { printable } from '../util/printable.ts'
import { shownId } from '../util/request-id.ts'
import { constraintsText } from './constraints-text.ts'
import { readIdentity, unidentified, type ReadIdentity } from './identified.ts'
import type { RelayOptions } from './relay-options.ts'

/** Admission on one relay route. */
export class RelayRoute {
  readonly #fastify: FastifyInstance
  readonly #server: RelayServer
  readonly #options: RelayOptions
  /** Part of the scope: routes with the same URL and different constraints do not share channels. */
  readonly #constraints: string
  readonly #protocols: readonly ProtocolName[]
  readonly #framings: readonly FramingName[]
  readonly #hasWebSockets: boolean
  readonly #target: RouteTarget | undefined

  constructor (fastify: FastifyInstance, server: RelayServer, options: RelayOptions, constraints: object | undefined) {
    const { hosts, origins, protocols, framings, scope, identify, target, webSockets, perMessageDeflate, proxyProtocol, open, plain } = options
    if (hosts !== undefined && !(Array.isArray(hosts) && hosts.length > 0 && hosts.every((host) => typeof host === 'string'))) {
      throw optionError('hosts', 'a list of host names', hosts)
    }
    if (origins !== undefined && !(Array.isArray(origins) && origins.length > 0 && origins.every((origin) => originOf(origin) === origin))) {
      throw optionError('origins', 'a list of origins, as https://app.example.com', origins)
    }
    if (scope !== undefined && typeof scope !== 'string') throw optionError('scope', 'a string', scope)
    if (identify !== undefined && typeof identify !== 'function') throw optionError('identify', 'a function', identify)
    if (plain !== undefined && typeof plain !== 'function') throw optionError('plain', 'a function', plain)
    for (const [name, value] of Object.entries({ webSockets, perMessageDeflate, open })) {
      if (value !== undefined && typeof value !== 'boolean') throw optionError(name, 'true or false', value)
    }
    if (proxyProtocol !== undefined && (target === undefined || ![1, 2].includes(proxyProtocol))) {
      throw optionError('proxyProtocol', '1 or 2, and given with target', proxyProtocol)
    }
    this.#fastify = fastify
    this.#server = server
    this.#options = options
    this.#constraints = constraintsText(constraints)
    this.#protocols = readList('protocols', protocols, protocolNames)
    this.#framings = readList('framings', framings, framingNames)
    this.#hasWebSockets = webSockets ?? true
    this.#target = target === undefined ? undefined : new RouteTarget(fastify, target, proxyProtocol)
  }

  /** Runs the checks that come before the app's own hooks of the route. It throws the error to answer with. */
  checkRequest (request: FastifyRequest, reply: FastifyReply): void {
    try {
      const handshake = Handshake.of(request.raw)
      if (this.#options.plain !== undefined && (handshake === undefined || asksForNothing(handshake))) return handshake?.ignore()
      if (handshake === undefined) throw new errors.FST_RELAY_UPGRADE_REQUIRED(this.#protocols.join(', '), lostUpgradeText(request))
      const isWebSocket = this.#protocolOf(handshake) === 'websocket' && handshake.asksForWebSocket
      if (isWebSocket) raise(checkOpeningHandshake(request.headers, handshake.httpVersion === '1.1'))
      const { hosts, origins } = this.#options
      if (hosts !== undefined && !isHostAllowed(request.hostname, hosts)) throw new errors.FST_RELAY_HOST_NOT_ALLOWED(printable(request.hostname))
      if (isWebSocket) raise(checkOrigin(request, origins))
      clientAddress(request.ip)
    } catch (error) {
      this.#prepareRefusal(request, reply, error)
      throw error
    }
  }

  async handle (request: FastifyRequest, reply: FastifyReply): Promise<unknown> {
    const handshake = Handshake.of(request.raw)
    if (handshake === undefined) return await this.#options.plain!.call(this.#fastify, request, reply)
    try {
      await this.#admit(handshake, request, reply)
    } catch (error) {
      this.#prepareRefusal(request, reply, error)
      throw error
    }
    // Undefined sends a reply without content. Its onSend hooks run, and `open` is the last of them. If the handshake is no longer
    // open, its deadline passed or the client left while we were waiting.
    return handshake.isOpen ? undefined : reply.hijack()
  }

  /**
   * Opens the tunnel, if the reply that is about to be sent belongs to an admitted handshake.
   * @returns true if Fastify has nothing left to send
   */
  open (request: FastifyRequest, reply: FastifyReply): boolean {
    const handshake = Handshake.of(request.raw)
    const opening = handshake?.takeOpening()
    if (handshake === undefined || opening === undefined) return false
    try {
      if (handshake.isOpen) opening.open()
      else opening.giveUp()
    } catch (error) {
      opening.giveUp()
      this.#prepareRefusal(request, reply, error)
      throw error
    }
    reply.hijack()
    return true
  }

  /** Records an error that a hook or the relay threw. */
  noteError (request: FastifyRequest, error: FastifyError): void {
    const handshake = Handshake.of(request.raw)
    // An onSend hook may throw after the handshake was admitted.
    handshake?.takeOpening()?.giveUp()
    handshake?.note(error)
    // Their messages suffice, and they can come in floods: do not log stacks.
    if (isRelayError(error) && (error.statusCode! < 500 || error.statusCode === 503)) delete error.stack
  }

  async #admit (handshake: Handshake, request: FastifyRequest, reply: FastifyReply): Promise<void> {
    if (!handshake.isOpen) return
    const protocol = this.#protocolOf(handshake)
    const target = await this.#target?.choose(request)
    if (!handshake.isOpen) return
    const agreement = this.#agree(handshake, protocol, target)
    const { identify } = this.#options
    const identified = await identify?.call(this.#fastify, request)
    if (!handshake.isOpen) return
    const identity = identify === undefined ? unidentified : readIdentity(identified!)
    const admitted = this.#admitted(request, handshake, protocol, agreement, identity, target !== undefined)
    checkHeaders(reply)
    this.#server.hub.checkRoom(admitted)
    const connected = target && await this.#target!.connect(target, request, this.#server.hub.options.handshakeTimeout)
    const complete = connected === undefined ? admitted : { ...admitted, target: connected }
    if (!handshake.isOpen) return closeUnused(complete)
    handshake.prepare({
      open: () => {
        checkHeaders(reply)
        // Other clients may have taken the place since the first check.
        this.#server.hub.checkRoom(complete, true)
        this.#attach(handshake, request, reply, agreement, complete)
      },
      giveUp: () => closeUnused(complete)
    })
  }

  #agree (handshake: Handshake, protocol: ProtocolName, target: Target | undefined): Agreement {
    const { headers } = handshake.request
    const framings = target === undefined ? this.#framings : framingsFor(target, this.#framings)
    const asksForWebSocket = protocol === 'websocket' && handshake.asksForWebSocket
    if (asksForWebSocket && this.#hasWebSockets) return agreeOnWebSocket(headers, framings, this.#server.hub.options.maxPacketSize)
    const agreement = protocols[protocol](headers, framings, this.#server.hub.options.maxPacketSize)
    if (asksForWebSocket) agreement.answerHeaders['Sec-WebSocket-Accept'] = acceptValueOf(headers['sec-websocket-key']!)
    const name = agreement.framing?.name ?? 'raw'
    // Some protocols imply a framing, so the target may not support it.
    if (target !== undefined && framingsFor(target, [name]).length === 0) throw new errors.FST_RELAY_FRAMING(name, framings.join(', '))
    return agreement
  }

  #admitted (
    request: FastifyRequest, { httpVersion }: Handshake, protocol: ProtocolName, agreement: Agreement, identity: ReadIdentity, hasTarget: boolean
  ): Admitted {
    const { id, channel, publicKey, context } = identity
    const { carries, framing, hasKeepalive, holdsOutput } = agreement
    const address = clientAddress(request.ip)
    return {
      channel: {
        scope: this.#options.scope ?? request.routeOptions.url! + this.#constraints,
        name: channel ?? channelName(request.params as Record<string, unknown>),
        kind: hasTarget ? 'target' : carries === 'stream' ? 'stream' : 'packet'
      },
      id,
      publicKey,
      context,
      address,
      client: address && limitKey(address),
      requestId: shownId(request),
      protocol,
      httpVersion,
      framing,
      hasKeepalive,
      holdsOutput
    }
  }

  /** Runs in the same turn of the event loop as the last `checkRoom`. */
  #attach (handshake: Handshake, request: FastifyRequest, reply: FastifyReply, agreement: Agreement, admitted: Admitted): void {
    this.#checkProxy(request, admitted.address)
    if (agreement.webSocket !== undefined) return this.#attachWebSocket(handshake, agreement.webSocket.protocol, agreement, reply, admitted)
    const tunnel = handshake.accept(admitted.protocol, agreement.answerHeaders, reply.getHeaders())
    this.#server.hub.attach(admitted, tunnel)
  }

  #attachWebSocket (handshake: Handshake, protocol: string | undefined, { carries, answerHeaders }: Agreement, reply: FastifyReply, admitted: Admitted): void {
    const { hub, webSockets } = this.#server
    const server = webSockets.serverFor(this.#fastify, handshake.httpVersion, {
      maxPayload: carries === 'stream' ? MAX_STREAM_MESSAGE : MAX_DATAGRAM_SIZE,
      perMessageDeflate: this.#options.perMessageDeflate ?? false,
      closeTimeout: hub.options.halfClosedTimeout
    })
    let isLater = false
    const maxInflated = carries === 'stream' ? MAX_STREAM_MESSAGE : hub.options.maxPacketSize
    handshake.acceptWebSocket({ server, protocol, maxInflated, answerHeaders }, reply.getHeaders(), {
      onOpen: ({ webSocket, stream, tunnel }) => {
        try {
          // Other clients may have taken the place since the last check.
          if (isLater) hub.checkRoom(admitted, true)
        } catch (error) {
          closeWebSocket(webSocket, closeCodes.tryAgainLater, (error as Error).message)
          return closeUnused(admitted)
        }
        if (carries === 'stream') hub.attach(admitted, new WebSocketTunnel(new WebSocketStream(webSocket, stream)))
        else hub.attach({ ...admitted, messages: new WebSocketMessages(webSocket, stream) }, tunnel)
      },
      onFailed: () => closeUnused(admitted),
      onFault: (err) => reply.log.error({ err }, "the app's own WebSocket server threw an error")
    })
    isLater = true
  }

  /**
   * Returns the protocol that the client asks for.
   * @throws FST_RELAY_PROTOCOL, or FST_RELAY_CONNECT_PROTOCOL over HTTP/2, if this route does not accept it
   */
  #protocolOf ({ asked, httpVersion }: Handshake): ProtocolName {
    const isConnect = httpVersion === '2.0'
    const spoken = isConnect ? this.#protocols.filter((name) => this.#isForConnect(name)) : this.#protocols
    const protocol = chooseProtocol(asked, spoken)
    if (protocol !== undefined) return protocol
    const unknown = printable(asked ?? '')
    throw isConnect
      ? new errors.FST_RELAY_CONNECT_PROTOCOL(unknown, spoken.join(', '))
      : new errors.FST_RELAY_PROTOCOL(unknown, spoken.join(', '))
  }

  /** Returns true if a client may request the protocol in `:protocol` (RFC 8441, section 4). */
  #isForConnect (name: ProtocolName): boolean {
    return name === 'spanza' || (name === 'websocket' && this.#hasWebSockets && canOpenOnStreams)
  }

  /** Sets the response headers for one of the relay's own errors, and records the error. */
  #prepareRefusal (request: FastifyRequest, reply: FastifyReply, error: unknown): void {
    if (!isRelayError(error)) return
    const handshake = Handshake.of(request.raw)
    handshake?.note(error)
    for (const name of findInvalidHeaders(reply.getHeaders())) reply.removeHeader(name)
    reply.headers(retryAfter(error.statusCode!))
    if (error.code === 'FST_RELAY_WEBSOCKET_VERSION') reply.header('sec-websocket-version', WEBSOCKET_VERSION)
    // HTTP/2 has no Upgrade and Connection headers.
    if (!(request.raw instanceof Http2ServerRequest)) reply.headers(offerUpgrade(asksForUpgrade.has(error.code) ? this.#protocols : []))
  }

  #checkProxy (request: FastifyRequest, address: string | undefined): void {
    const isForwarded = request.headers['x-forwarded-for'] !== undefined || request.headers.forwarded !== undefined
    if (!this.#server.proxyCheck.seems(address, isForwarded)) return
    this.#fastify.log.warn({ address }, 'every relay tunnel comes from one address, and says that it was forwarded: ' +
      'set trustProxy, or limits per client address will meet all clients together')
  }
}

/** Explains a lost Upgrade header to the operator, who reads it in the log. Only upgrade requests have the headers checked here. */
function lostUpgradeText ({ headers }: FastifyRequest): string {
  const left = ['Spanza-Framing', 'Sec-WebSocket-Version'].find((name) => headers[name.toLowerCase()] !== undefined)
  return left === undefined ? '' : `; this request has ${left}, so the proxy in front of this server seems to take Upgrade away`
}

/** Codes of refusals whose response offers the accepted protocols in an Upgrade header. */
const asksForUpgrade = new Set(['FST_RELAY_UPGRADE_REQUIRED', 'FST_RELAY_PROTOCOL', 'FST_RELAY_WEBSOCKET_VERSION'])

/** @throws FST_RELAY_ANSWER_HEADER for an invalid response header */
function checkHeaders (reply: FastifyReply): void {
  const [invalid] = findInvalidHeaders(reply.getHeaders())
  if (invalid !== undefined) throw new errors.FST_RELAY_ANSWER_HEADER(printable(invalid))
}

/** Returns true if the client offers only foreign protocols, such as `h2c`. A server may ignore those (RFC 9110, section 7.8). */
function asksForNothing ({ asked, httpVersion }: Handshake): boolean {
  return httpVersion === '1.1' && chooseProtocol(asked, protocolNames) === undefined
}

function raise (error: Error | undefined): void {
  if (error !== undefined) throw error
}

function closeUnused ({ target }: Admitted): void {
  target?.close()
}

/** Joins the route's decoded parameters into one name. A slash within a value is encoded, so that different values never collide. */
function channelName (params: Record<string, unknown>): string {
  // A schema may have coerced parameters to numbers.
  return Object.values(params).map((value) => String(value).replace(/[%/]/g, encodeURIComponent)).join('/')
}
