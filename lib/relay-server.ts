import { IncomingMessage, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { HandshakeLimits } from './admission/limits.ts'
import { checkForm } from './admission/handshake.ts'
import { canonicalAddress, UntrustedProxyCheck } from './admission/client-address.ts'
import { claimUpgrades, type Claimant } from './entrance/arbiter.ts'
import { Handshake, retryAfter, type Refusal } from './entrance/http1.ts'
import { RelayRoutes } from './entrance/relay-routes.ts'
import { errors } from './errors.ts'
import { RelayHub } from './hub/hub.ts'
import type { HubOptions } from './options.ts'

/** What Node keeps of a request's headers where the server's `maxHeadersCount` is not set. */
const DEFAULT_MAX_HEADERS = 2000

/** What is known of an unfinished handshake. */
interface Unfinished {
  /** The client's address: the socket's until Fastify has told what its proxies say. */
  address: string | undefined
  /** Called when the handshake has finished; undefined until the limits have been asked. */
  release: (() => void) | undefined
}

/** What one Fastify server has for its relay routes: the claim on upgrades, the handshakes under way, and the hub. */
export class RelayServer implements Claimant {
  readonly hub: RelayHub
  readonly routes: RelayRoutes
  readonly proxyCheck = new UntrustedProxyCheck()
  readonly #fastify: FastifyInstance
  readonly #limits: HandshakeLimits
  readonly #handshakes = new Map<Handshake, Unfinished>()
  readonly #releaseClaim: () => void

  /** @throws FST_RELAY_OPTION */
  constructor (fastify: FastifyInstance, options: HubOptions) {
    this.#fastify = fastify
    this.hub = new RelayHub(options, fastify.log)
    this.#limits = new HandshakeLimits(this.hub.options, performance.now())
    this.routes = new RelayRoutes(fastify)
    this.#releaseClaim = claimUpgrades(fastify.server as Server, this)
    fastify.addHook('preClose', async () => await this.#close())
  }

  /** Limits the handshakes on the routes of a scope, before any hook that is added to it later. */
  guard (scope: FastifyInstance): void {
    scope.addHook('onRequest', (request, reply, done) => done(this.#limit(request, reply)))
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
    const handshake: Handshake = new Handshake(request, socket, head, (refusal) => this.#settled(handshake, refusal))
    this.#handshakes.set(handshake, { address: canonicalAddress(socket.remoteAddress), release: undefined })
    if (this.hub.isClosing) return handshake.refuse(new errors.FST_RELAY_CLOSING())
    const { handshakeTimeout, maxUnfinishedHandshakes } = this.hub.options
    if (this.#handshakes.size > maxUnfinishedHandshakes) return handshake.refuse(new errors.FST_RELAY_HUB_UNFINISHED(maxUnfinishedHandshakes))
    const malformed = checkForm(request, (this.#fastify.server as Server).maxHeadersCount ?? DEFAULT_MAX_HEADERS)
    if (malformed !== undefined) return handshake.refuse(malformed)
    handshake.dispatch(this.#fastify.routing, handshakeTimeout, new errors.FST_RELAY_HANDSHAKE_TIMEOUT(handshakeTimeout))
  }

  /** Limits what begins, before any hook that was added later. */
  #limit (request: FastifyRequest, reply: FastifyReply): Error | undefined {
    const handshake = Handshake.of(request.raw)
    const unfinished = handshake && this.#handshakes.get(handshake)
    if (handshake === undefined || unfinished === undefined || unfinished.release !== undefined) return
    unfinished.address = canonicalAddress(request.ip) ?? unfinished.address
    const begun = this.#limits.begin(unfinished.address, performance.now())
    if (typeof begun !== 'function') {
      handshake.note(begun)
      reply.headers(retryAfter(begun.statusCode!))
      return begun
    }
    unfinished.release = begun
  }

  #settled (handshake: Handshake, refusal: Refusal | undefined): void {
    const { address, release } = this.#handshakes.get(handshake)!
    release?.()
    this.#handshakes.delete(handshake)
    if (refusal === undefined) return
    this.hub.refused({ ...refusal, address, path: handshake.request.url!.split('?', 1)[0]! })
  }

  async #close (): Promise<void> {
    const closed = this.hub.close()
    for (const handshake of this.#handshakes.keys()) handshake.interrupt(new errors.FST_RELAY_CLOSING())
    await closed
    this.#releaseClaim()
  }
}
