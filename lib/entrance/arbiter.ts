import { ServerResponse, type IncomingMessage, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { endAndLinger } from '../tunnel/linger.ts'
import { watchParsers } from '../internals/parser-upgrade.ts'

/**
 * One arbiter for each http.Server decides who gets an upgrade. An EventEmitter cannot stop an event from reaching
 * the other listeners, so `emit` of that one server is wrapped for the event `upgrade` alone: an upgrade that
 * somebody claims goes there only, any other goes on as if the arbiter were not there.
 */

/** Takes upgrades of one server. */
export interface Claimant {
  /** Whether this upgrade is the claimant's. Must not throw. */
  claims: (request: IncomingMessage) => boolean
  /** Takes a claimed upgrade over; `head` holds the bytes that came behind the request. */
  upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
}

interface UpgradableServer extends Server {
  /** Since Node 22.21 and 24.9: asked before an upgrade is made of a request. */
  shouldUpgradeCallback?: (request: IncomingMessage) => boolean
}

// Registered symbol: two copies of this package in one process share the arbiter of a server.
const kArbiter = Symbol.for('fastify-spanza-relay.arbiter')

interface ArbitratedServer extends UpgradableServer {
  [kArbiter]?: Arbiter
}

/** Node 20 makes upgrades only while there is a listener, every version destroys the socket when there is none. */
function keepsUpgradesOn (): void {}

class Arbiter {
  readonly #server: UpgradableServer
  readonly #claimants = new Set<Claimant>()
  readonly #served = new WeakSet<UpgradableServer>()
  #uninstall: Array<() => void> = []

  constructor (server: UpgradableServer) {
    this.#server = server
  }

  add (claimant: Claimant): void {
    if (this.#claimants.size === 0) this.#install()
    this.#claimants.add(claimant)
  }

  remove (claimant: Claimant): void {
    if (!this.#claimants.delete(claimant) || this.#claimants.size > 0) return
    for (const undo of this.#uninstall.splice(0)) undo()
  }

  #install (): void {
    const server = this.#server
    const arbiter = this
    const ownEmit = Object.hasOwn(server, 'emit') ? server.emit : undefined

    function emit (this: UpgradableServer, event: string, ...args: unknown[]): boolean {
      // Looked up at each call: tracing libraries patch the prototype at any time.
      const next = ownEmit ?? Object.getPrototypeOf(server).emit
      if (event !== 'upgrade') return next.call(this, event, ...args)
      if (arbiter.#take(args[0] as IncomingMessage, args[1] as Duplex, args[2] as Buffer)) return true
      // @fastify/http-proxy answers what is nobody's only if its own listener is the only one.
      server.off('upgrade', keepsUpgradesOn)
      try {
        return next.call(this, event, ...args)
      } finally {
        endAnswered(args[1] as Duplex)
        if (arbiter.#claimants.size > 0) server.on('upgrade', keepsUpgradesOn)
      }
    }
    server.emit = emit as Server['emit']
    server.on('upgrade', keepsUpgradesOn)
    this.#uninstall.push(() => {
      server.off('upgrade', keepsUpgradesOn)
      if (server.emit !== emit as Server['emit']) return
      if (ownEmit !== undefined) server.emit = ownEmit
      else delete (server as Partial<Server>).emit
    })
    this.#serve(server)
  }

  /** Makes `server` ask before it turns a request into an upgrade. */
  #serve (server: UpgradableServer): void {
    if (this.#served.has(server)) return
    this.#served.add(server)
    const original = server.shouldUpgradeCallback
    const shouldUpgrade = (request: IncomingMessage): boolean =>
      this.#claimantOf(request) !== undefined || (this.#othersListen() && (original?.call(server, request) ?? true))
    // Set on every version: Node 22.21.0 calls it unasked on HTTP/2 servers.
    server.shouldUpgradeCallback = shouldUpgrade
    const unwatch = original === undefined ? watchParsers(server, shouldUpgrade) : undefined
    this.#uninstall.push(() => {
      unwatch?.()
      this.#served.delete(server)
      if (server.shouldUpgradeCallback !== shouldUpgrade) return
      if (original !== undefined) server.shouldUpgradeCallback = original
      else delete server.shouldUpgradeCallback
    })
  }

  #take (request: IncomingMessage, socket: Duplex, head: Buffer): boolean {
    const claimant = this.#claimantOf(request)
    if (claimant !== undefined) {
      claimant.upgrade(request, socket, head)
      return true
    }
    if (this.#othersListen()) return false
    // Only an upgrade that never went through `#serve` comes here: Fastify binds a second server for a localhost
    // of two addresses and forwards its upgrades. From the next one on, that server asks, too.
    const origin = (request.socket as { server?: UpgradableServer } | undefined)?.server
    if (origin !== undefined) this.#serve(origin)
    serveWithoutUpgrade(this.#server, request, socket)
    return true
  }

  #claimantOf (request: IncomingMessage): Claimant | undefined {
    for (const claimant of this.#claimants) {
      if (claimant.claims(request)) return claimant
    }
  }

  #othersListen (): boolean {
    return this.#server.listeners('upgrade').some((listener) => listener !== keepsUpgradesOn)
  }
}

/**
 * Ends the connection of an upgrade that another listener has given a response to, once an answer other than 101 has been sent: nobody
 * reads the next request from it. Those of Fastify's answers that no hook sees (to a URL that no router can take) would leave it
 * open behind @fastify/websocket, and keep the server from closing.
 */
function endAnswered (socket: Duplex): void {
  const response = (socket as { _httpMessage?: unknown })._httpMessage
  if (!(response instanceof ServerResponse)) return
  const end = (): void => { if (response.statusCode !== 101) endAndLinger(socket) }
  if (response.writableFinished) end()
  else response.once('finish', end)
}

/** Answers a request as if its Upgrade header were not there. Its body, if any, is beyond reach by now. */
function serveWithoutUpgrade (server: Server, request: IncomingMessage, socket: Duplex): void {
  socket.on('error', () => socket.destroy())
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.on('finish', () => endAndLinger(socket))
  try {
    response.assignSocket(socket as Parameters<ServerResponse['assignSocket']>[0])
  } catch {
    socket.destroy()
    return
  }
  if (request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined) {
    response.writeHead(400).end()
  } else {
    server.emit('request', request, response)
  }
}

/**
 * Registers a claimant with the arbiter of `server`.
 * @returns takes the claim away; the last one leaves the server as it was found
 */
export function claimUpgrades (server: Server, claimant: Claimant): () => void {
  const arbitrated = server as ArbitratedServer
  const arbiter = arbitrated[kArbiter] ??= new Arbiter(arbitrated)
  arbiter.add(claimant)
  return () => arbiter.remove(claimant)
}
