import { ServerResponse, type IncomingMessage, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { endAndLinger } from '../tunnel/linger.ts'
import { watchParsers } from '../internals/parser-upgrade.ts'

/**
 * Each http.Server has one arbiter, which routes its upgrades. An EventEmitter listener cannot keep an event from the
 * other listeners, so the arbiter wraps the server's `emit` for the event `upgrade` only. A claimed upgrade goes to its
 * claimant alone; any other upgrade goes to the server's own listeners.
 */

/** Handles some of a server's upgrades. */
export interface Claimant {
  /** True if this upgrade belongs to the claimant. Must not throw. */
  claims: (request: IncomingMessage) => boolean
  /** Takes over a claimed upgrade. `head` holds the bytes received after the request. */
  upgrade: (request: IncomingMessage, socket: Duplex, head: Buffer) => void
}

interface UpgradableServer extends Server {
  /** Since Node 22.21 and 24.9: Node calls this before it treats a request as an upgrade. */
  shouldUpgradeCallback?: (request: IncomingMessage) => boolean
}

// A registered symbol, so that two copies of this package in one process share a server's arbiter.
const kArbiter = Symbol.for('fastify-spanza-relay.arbiter')

interface ArbitratedServer extends UpgradableServer {
  [kArbiter]?: Arbiter
}

/** Node 20 emits upgrades only while a listener exists. Every Node version destroys the socket if none does. */
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
      // Look this up at each call: tracing libraries may patch the prototype at any time.
      const next = ownEmit ?? Object.getPrototypeOf(server).emit
      if (event !== 'upgrade') return next.call(this, event, ...args)
      if (arbiter.#take(args[0] as IncomingMessage, args[1] as Duplex, args[2] as Buffer)) return true
      // @fastify/http-proxy answers unclaimed upgrades only if its listener is the only one.
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

  /** Makes `server` consult the arbiter before it treats a request as an upgrade. */
  #serve (server: UpgradableServer): void {
    if (this.#served.has(server)) return
    this.#served.add(server)
    const original = server.shouldUpgradeCallback
    const shouldUpgrade = (request: IncomingMessage): boolean =>
      this.#claimantOf(request) !== undefined || (this.#othersListen() && (original?.call(server, request) ?? true))
    // Set it on every version: Node 22.21.0 also calls it on HTTP/2 servers, without checking that it exists.
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
    // Only upgrades of a server that `#serve` has not seen get here. When localhost has two addresses, Fastify binds
    // a second server and forwards its upgrades. From its next request on, that server consults the arbiter too.
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
 * Ends the connection when another listener has answered its upgrade with a status other than 101: Node reads no further
 * request from it. With @fastify/websocket, Fastify's answer to an unroutable URL runs no hook. Without this function,
 * the connection would stay open and keep the server from closing.
 */
function endAnswered (socket: Duplex): void {
  const response = (socket as { _httpMessage?: unknown })._httpMessage
  if (!(response instanceof ServerResponse)) return
  const end = (): void => { if (response.statusCode !== 101) endAndLinger(socket) }
  if (response.writableFinished) end()
  else response.once('finish', end)
}

/** Answers a request as if it had no Upgrade header. A request with a body gets 400, because its body can no longer be read. */
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
 * @returns a function that removes the claim; removing the last claim restores the server
 */
export function claimUpgrades (server: Server, claimant: Claimant): () => void {
  const arbitrated = server as ArbitratedServer
  const arbiter = arbitrated[kArbiter] ??= new Arbiter(arbitrated)
  arbiter.add(claimant)
  return () => arbiter.remove(claimant)
}
