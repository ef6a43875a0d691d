import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import type { HubOptions } from '../hub/hub-options.ts'
import { rateLimit, type TokenBucket } from '../util/token-bucket.ts'
import { limitKey } from './client-address.ts'

/** The number of clients to remember. The least recently active one without an unfinished handshake is forgotten first. */
const MAX_CLIENTS = 10_000

interface Client {
  unfinished: number
  rate: TokenBucket
}

/** Limits new handshakes: for each client address (IPv6: for each /64), and for all clients together. */
export class HandshakeLimits {
  readonly #options: Required<HubOptions>
  readonly #clients = new Map<string, Client>()
  readonly #rate: TokenBucket
  #unfinished = 0

  constructor (options: Required<HubOptions>, now: number) {
    this.#options = options
    this.#rate = rateLimit(options.handshakesPerSecond, now)
  }

  /**
   * Counts a new handshake.
   * @param address an address without brackets. Undefined, for a unix socket, skips the limits per client.
   * @param now in milliseconds, from `performance.now()`
   * @returns the error to refuse the handshake with, or a function to call when the handshake ends
   */
  begin (address: string | undefined, now: number): FastifyError | (() => void) {
    const { maxUnfinishedHandshakes, maxClientUnfinishedHandshakes, clientHandshakesPerSecond, handshakesPerSecond } = this.#options
    const key = address && limitKey(address)
    const client = key === undefined ? undefined : this.#client(key, now)
    if (client !== undefined) {
      if (client.unfinished >= maxClientUnfinishedHandshakes) return new errors.FST_RELAY_CLIENT_UNFINISHED(key!, maxClientUnfinishedHandshakes)
      if (!client.rate.take(now)) return new errors.FST_RELAY_CLIENT_RATE(key!, clientHandshakesPerSecond)
    }
    // Check the shared limits last, so that a client over its own limit does not use them up.
    if (this.#unfinished >= maxUnfinishedHandshakes) return new errors.FST_RELAY_HUB_UNFINISHED(maxUnfinishedHandshakes)
    if (!this.#rate.take(now)) return new errors.FST_RELAY_HUB_RATE(handshakesPerSecond)
    this.#unfinished++
    if (client !== undefined) client.unfinished++
    return () => {
      this.#unfinished--
      if (client !== undefined) client.unfinished--
    }
  }

  #client (key: string, now: number): Client {
    const known = this.#clients.get(key)
    if (known !== undefined) {
      this.#clients.delete(key)
      this.#clients.set(key, known)
      return known
    }
    if (this.#clients.size >= MAX_CLIENTS) this.#forgetOne()
    const client = { unfinished: 0, rate: rateLimit(this.#options.clientHandshakesPerSecond, now) }
    this.#clients.set(key, client)
    return client
  }

  #forgetOne (): void {
    for (const [key, client] of this.#clients) {
      if (client.unfinished > 0) continue
      this.#clients.delete(key)
      return
    }
  }
}
