import { IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { Http2ServerRequest, type Http2Server, type Http2ServerResponse } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { FastifyError, FastifyInstance, FastifyRequest, onRequestHookHandler } from 'fastify'
import { HandshakeLimits } from '../admission/handshake-limits.ts'
import { checkConnectForm, checkForm } from '../admission/request-form.ts'
import { canonicalAddress, UntrustedProxyCheck } from '../admission/client-address.ts'
import { claimUpgrades, type Claimant } from '../entrance/arbiter.ts'
import { Handshake, type Refusal } from '../entrance/handshake.ts'
import { Http1Handshake } from '../entrance/http1/http1-handshake.ts'
import { Http2Entrance, type Http2Claimant } from '../entrance/http2/http2-entrance.ts'
import { Http2Handshake } from '../entrance/http2/http2-handshake.ts'
import { refusedConnections } from '../entrance/proxy-protocol/header-reader.ts'
import { RequestAddress } from '../internals/request-address.ts'
import { RelayRoutes } from '../entrance/relay-routes.ts'
import { WebSocketServers } from '../entrance/websocket/websocket-servers.ts'
import { errors } from '../errors.ts'
import { countUp } from '../hub/counters.ts'
import { observe } from '../hub/histogram.ts'
import { Hub } from '../hub/hub.ts'
import type { HubOptions } from '../hub/hub-options.ts'
import { printable } from '../util/printable.ts'
import { shownId } from '../util/request-id.ts'
import { createHandshakeCounters } from './handshake-counters.ts'
import { HubFacade } from './hub-facade.ts'
import type { RefusalInfo } from './relay-hub.ts'

/** What Node keeps of a request's headers where the server's `maxHeadersCount` is not set: its limit of 2000 counts names and values. */
const DEFAULT_MAX_HEADERS = 1000

/** The hooks of `RelayServer.guard`, which keep nobody out. */
export const limitingHooks = new WeakSet<object>()

/** What is known of an unfinished handshake. */
interface Unfinished {
  /** The client's address: the socket's until Fastify has told what its proxies say. */
  address: string | undefined
  /** Called when the handshake has finished; undefined until the limits have been asked. */
  release: (() => void) | undefined
  /** The id that Fastify has given the request. */
  requestId: string | undefined
  /** When it began, by `performance.now()`. */
  since: number
}

/** What avvio, with which Fastify boots, adds to an instance. */
interface Closable {
  onClose: (handler: (instance: unknown, done: () => void) => void) => void
}

/** What one Fastify server has for its relay routes: the claim on upgrades, the handshakes under way, and the hub. */
export class RelayServer implements Claimant, Http2Claimant {
  readonly hub: Hub
  readonly relayHub: HubFacade
  readonly routes: RelayRoutes
  readonly proxyCheck = new UntrustedProxyCheck()
  readonly webSockets = new WebSocketServers()
  /** Undefined where the server speaks HTTP/1.1 only. */
  readonly http2: Http2Entrance | undefined
  readonly #fastify: FastifyInstance
  readonly #requestIdLabel: string
  readonly #counters = createHandshakeCounters()
  readonly #limits: HandshakeLimits
  readonly #addresses = new RequestAddress()
  readonly #handshakes = new Map<Handshake, Unfinished>()
  /** Connections of HTTP/1.1 that end with the answer to a refused handshake. Who does not take it keeps them open up to `handshakeTimeout`. */
  readonly #ending = new Set<Socket>()
  readonly #releaseClaim: () => void
  #closed: Promise<void> | undefined

  /** @throws FST_RELAY_OPTION */
  constructor (fastify: FastifyInstance, options: HubOptions) {
    this.#fastify = fastify
    this.#requestIdLabel = fastify.initialConfig.requestIdLogLabel ?? 'reqId'
    this.hub = new Hub(options, fastify.log, {
      attached: (peer) => this.relayHub.announce('attach', peer),
      detached: (peer, info) => this.relayHub.announce('detach', peer, info)
    }, this.#requestIdLabel)
    this.relayHub = new HubFacade(this.hub, this.#counters, refusedConnections(fastify.server), fastify.log)
    this.#limits = new HandshakeLimits(this.hub.options, performance.now())
    this.routes = new RelayRoutes(fastify)
    this.#releaseClaim = claimUpgrades(fastify.server as Server, this)
    if (fastify.initialConfig.http2 === true) {
      fastify.addHttpMethod('CONNECT')
      const { keepaliveInterval, keepaliveTimeout, maxClientPeers } = this.hub.options
      this.http2 = new Http2Entrance(fastify.server as object as Http2Server, this, {
        sessionTimeout: fastify.initialConfig.http2SessionTimeout!, keepaliveInterval, keepaliveTimeout, maxClientPeers
      })
    }
    fastify.addHook('preClose', async () => await this.#close())
    // A preClose hook of the app that throws makes Fastify skip ours, and wait for every connection all the same. What is
    // registered last closes first: before Fastify's own work, of which those hooks are the beginning.
    fastify.addHook('onReady', async () => {
      (fastify as unknown as Closable).onClose((_instance, done) => {
        setTimeout(() => { this.#close().catch(() => {}) }, this.hub.options.closeGrace).unref()
        done()
      })
    })
  }

  /** Limits the handshakes on the routes of a scope, before any hook that is added to it later. */
  guard (scope: FastifyInstance): void {
    const limit: onRequestHookHandler = (request, reply, done) => {
      this.#addresses.learn(request)
      if (this.#begins(request)) return done()
      // Answered already: a flood is not to reach the error handler of the app either.
      reply.hijack()
    }
    limitingHooks.add(limit)
    scope.addHook('onRequest', limit)
  }

  claims (request: IncomingMessage): boolean {
    // @fastify/websocket's injectWS emits upgrades with an object that only looks like a request.
    return request instanceof IncomingMessage && this.routes.has(request)
  }

  upgrade (request: IncomingMessage, stream: Duplex, head: Buffer): void {
    // Node 26 brings a wrapper of the socket where a body was announced; what is refused is answered on the socket.
    const { socket } = request
    // That wrapper repeats the socket's errors, and nobody else listens.
    if (stream !== socket) stream.on('error', () => {})
    const handshake: Handshake = new Http1Handshake(request, socket, head, (refusal) => this.#settled(handshake, refusal))
    this.#handshakes.set(handshake, { address: canonicalAddress(socket.remoteAddress), release: undefined, requestId: undefined, since: performance.now() })
    if (hasLostAddress(socket)) {
      socket.destroy()
      return
    }
    this.#dispatch(handshake)
  }

  claimsConnect (request: Http2ServerRequest): boolean {
    return this.routes.has(request)
  }

  connect (request: Http2ServerRequest, response: Http2ServerResponse): void {
    const handshake: Handshake = new Http2Handshake(request, response, (refusal) => {
      if (refusal === undefined) this.http2!.hold(request.stream)
      this.#settled(handshake, refusal)
    })
    const socket = this.http2!.socketOf(request.stream)
    this.#handshakes.set(handshake, { address: canonicalAddress(socket?.remoteAddress), release: undefined, requestId: undefined, since: performance.now() })
    if (socket === undefined || hasLostAddress(socket)) {
      request.stream.destroy()
      return
    }
    this.#dispatch(handshake)
  }

  serve (request: Http2ServerRequest, response: Http2ServerResponse): void {
    // Its type knows HTTP/1.1 only.
    this.#fastify.routing(request as object as IncomingMessage, response as object as ServerResponse)
  }

  #dispatch (handshake: Handshake): void {
    const refusal = this.#checkBeforeRouting(handshake)
    if (refusal !== undefined) return handshake.refuse(refusal)
    handshake.dispatch(this.#fastify.routing, this.hub.options.handshakeTimeout)
  }

  #checkBeforeRouting (handshake: Handshake): FastifyError | undefined {
    const { request } = handshake
    if (this.hub.isClosing) return new errors.FST_RELAY_CLOSING()
    const malformed = request instanceof Http2ServerRequest
      ? checkConnectForm(request)
      : checkForm(request, (this.#fastify.server as Server).maxHeadersCount ?? DEFAULT_MAX_HEADERS)
    if (malformed !== undefined) return malformed
    if (this.#addresses.isKnown) return this.#begin(this.#handshakes.get(handshake)!, canonicalAddress(this.#addresses.of(request)))
    // Until the first request has come as far as our hook.
    const { maxUnfinishedHandshakes } = this.hub.options
    if (this.#handshakes.size > maxUnfinishedHandshakes) return new errors.FST_RELAY_HUB_UNFINISHED(maxUnfinishedHandshakes)
  }

  /** Limits what has not been limited before routing, before any hook that was added later. @returns false for a handshake that was refused */
  #begins (request: FastifyRequest): boolean {
    const handshake = Handshake.of(request.raw)
    const unfinished = handshake && this.#handshakes.get(handshake)
    if (handshake === undefined || unfinished === undefined || unfinished.requestId !== undefined) return true
    unfinished.requestId = shownId(request)
    const address = canonicalAddress(request.ip)
    if (unfinished.release !== undefined) {
      if (address === undefined || address === unfinished.address) return true
      // A hook of the app has taken away what nobody has vouched for, as that of a CDN's secret does. Whoever writes it must not choose
      // whose limits are used up: from now on all limits of one client are tested here.
      this.#addresses.forget()
      unfinished.release()
    }
    const refusal = this.#begin(unfinished, address)
    if (refusal !== undefined) handshake.interrupt(refusal)
    return refusal === undefined
  }

  #begin (unfinished: Unfinished, address: string | undefined): FastifyError | undefined {
    unfinished.address = address ?? unfinished.address
    const begun = this.#limits.begin(unfinished.address, performance.now())
    if (typeof begun !== 'function') return begun
    unfinished.release = begun
  }

  #settled (handshake: Handshake, refusal: Refusal | undefined): void {
    const { address, release, requestId, since } = this.#handshakes.get(handshake)!
    release?.()
    observe(this.#counters.handshakeSeconds, (performance.now() - since) / 1000)
    this.#handshakes.delete(handshake)
    if (refusal === undefined) return
    const { request } = handshake
    if (!(request instanceof Http2ServerRequest)) this.#watchEnd(request.socket)
    const { counter, ...told } = refusal
    countUp(this.#counters.refused, counter)
    const shown: RefusalInfo = { ...told, address, path: printable(this.routes.patternOf(request) ?? pathOf(request.url!)) }
    this.#fastify.log.info({ [this.#requestIdLabel]: requestId, refusal: shown }, 'relay handshake refused')
    this.relayHub.announce('refuse', shown)
  }

  #watchEnd (socket: Socket): void {
    if (socket.closed) return
    this.#ending.add(socket)
    socket.once('close', () => this.#ending.delete(socket))
  }

  #close (): Promise<void> {
    this.#closed ??= this.#closeNow()
    return this.#closed
  }

  async #closeNow (): Promise<void> {
    const closed = this.hub.close()
    for (const handshake of this.#handshakes.keys()) handshake.interrupt(new errors.FST_RELAY_CLOSING())
    await closed
    const { closeGrace } = this.hub.options
    this.http2?.close(closeGrace)
    if (this.#ending.size > 0) {
      setTimeout(() => { for (const socket of this.#ending) socket.destroy() }, closeGrace).unref()
    }
    this.#releaseClaim()
  }
}

/** Who has reset the connection may have no address any more, and would pass for a client on a unix socket. */
function hasLostAddress ({ remoteAddress, localAddress }: Socket): boolean {
  return remoteAddress === undefined && localAddress !== undefined
}

/** The path of a request's target, without what may hold a secret: a user and password before it, a query behind it. */
function pathOf (target: string): string {
  return /^(?:[^/?#;]*:\/\/[^/?#;]*)?([^?#;]*)/.exec(target)![1]!
}
