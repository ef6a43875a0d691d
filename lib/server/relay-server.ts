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

/** The number of headers that Node keeps by default. Its limit without `maxHeadersCount` is 2000, counting names and values. */
const DEFAULT_MAX_HEADERS = 1000

/** The hooks of `RelayServer.guard`. They limit handshakes, but do not authenticate clients. */
export const limitingHooks = new WeakSet<object>()

/** The state of an unfinished handshake. */
interface Unfinished {
  /** The client's address. Until Fastify applies `trustProxy`, this is the socket's address. */
  address: string | undefined
  /** Call this when the handshake finishes. Undefined until the limits admit the handshake. */
  release: (() => void) | undefined
  /** Fastify's id of the request. Undefined before routing. */
  requestId: string | undefined
  /** The start time, from `performance.now()`. */
  since: number
}

/** The method that avvio, Fastify's boot library, adds to an instance. */
interface Closable {
  onClose: (handler: (instance: unknown, done: () => void) => void) => void
}

/** The relay's state for one Fastify server: the claim on upgrades, the unfinished handshakes, and the hub. */
export class RelayServer implements Claimant, Http2Claimant {
  readonly hub: Hub
  readonly relayHub: HubFacade
  readonly routes: RelayRoutes
  readonly proxyCheck = new UntrustedProxyCheck()
  readonly webSockets = new WebSocketServers()
  /** Undefined if the server does not speak HTTP/2. */
  readonly http2: Http2Entrance | undefined
  readonly #fastify: FastifyInstance
  readonly #requestIdLabel: string
  readonly #counters = createHandshakeCounters()
  readonly #limits: HandshakeLimits
  readonly #addresses = new RequestAddress()
  readonly #handshakes = new Map<Handshake, Unfinished>()
  /**
   * HTTP/1.1 connections that close after a refusal. A client that does not read the response keeps its connection open, up to
   * `handshakeTimeout`.
   */
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
    // If a preClose hook of the app throws, Fastify skips ours, but still waits for every connection. Handlers registered last
    // run first, so this one runs before Fastify's own onClose handler, which starts by running the preClose hooks.
    fastify.addHook('onReady', async () => {
      (fastify as unknown as Closable).onClose((_instance, done) => {
        setTimeout(() => { this.#close().catch(() => {}) }, this.hub.options.closeGrace).unref()
        done()
      })
    })
  }

  /** Limits the handshakes on the routes of a scope. The limit runs before any hook that is added later. */
  guard (scope: FastifyInstance): void {
    const limit: onRequestHookHandler = (request, reply, done) => {
      this.#addresses.learn(request)
      if (this.#begins(request)) return done()
      // The relay has answered already. This also keeps a flood away from the app's error handler.
      reply.hijack()
    }
    limitingHooks.add(limit)
    scope.addHook('onRequest', limit)
  }

  claims (request: IncomingMessage): boolean {
    // injectWS of @fastify/websocket emits upgrades with an object that is not an IncomingMessage.
    return request instanceof IncomingMessage && this.routes.has(request)
  }

  upgrade (request: IncomingMessage, stream: Duplex, head: Buffer): void {
    // Node 26 passes a wrapper of the socket if the request announces a body. Refusals are written to the socket itself.
    const { socket } = request
    // The wrapper repeats the socket's errors, and has no other error listener.
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
    // The type of `routing` covers HTTP/1.1 only.
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
    // The addresses stay unknown until the first request reaches our hook. Until then, only the total is limited.
    const { maxUnfinishedHandshakes } = this.hub.options
    if (this.#handshakes.size > maxUnfinishedHandshakes) return new errors.FST_RELAY_HUB_UNFINISHED(maxUnfinishedHandshakes)
  }

  /**
   * Applies the limits, unless they were applied before routing to the same address.
   * @returns false if the handshake was refused
   */
  #begins (request: FastifyRequest): boolean {
    const handshake = Handshake.of(request.raw)
    const unfinished = handshake && this.#handshakes.get(handshake)
    if (handshake === undefined || unfinished === undefined || unfinished.requestId !== undefined) return true
    unfinished.requestId = shownId(request)
    const address = canonicalAddress(request.ip)
    if (unfinished.release !== undefined) {
      if (address === undefined || address === unfinished.address) return true
      // A hook of the app removed an untrusted X-Forwarded-For, for example because a CDN's secret was missing. A client must
      // not use up the limits of others by forging that header: from now on, limits per client are checked here only.
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

/** A reset connection may have lost its remote address, and would look like a client on a unix socket. */
function hasLostAddress ({ remoteAddress, localAddress }: Socket): boolean {
  return remoteAddress === undefined && localAddress !== undefined
}

/** Returns the path of a request target, without user, password and query, which may be secret. */
function pathOf (target: string): string {
  return /^(?:[^/?#;]*:\/\/[^/?#;]*)?([^?#;]*)/.exec(target)![1]!
}
