import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import { TokenBucket } from '../token-bucket.ts'
import { limitKey } from './client-address.ts'

/** Clients that are remembered at once; the one that was quiet for longest is forgotten first. */
const MAX_CLIENTS = 10_000
/** A burst is this many seconds' worth of the rate. */
const BURST_SECONDS = 5

interface Client {
  unfinished: number
  rate: TokenBucket
}

export interface HandshakeLimitOptions {
  /** Handshakes of one client address that may be unfinished at once. */
  maxUnfinishedHandshakes: number
  /** Handshakes of one client address in a second, on average; five times as many in a burst. */
  handshakesPerSecond: number
}

/** Limits on handshakes per client address, IPv6 by /64. */
export class HandshakeLimits {
  readonly #options: HandshakeLimitOptions
  readonly #clients = new Map<string, Client>()

  constructor (options: HandshakeLimitOptions) {
    this.#options = options
  }

  /**
   * Counts a handshake that begins.
   * @param address an address without brackets; undefined (a unix socket) is not limited
   * @returns the error to refuse it with, or a function to call when it has ended
   */
  begin (address: string | undefined, now: number): FastifyError | (() => void) {
    if (address === undefined) return () => {}
    const key = limitKey(address)
    const client = this.#client(key, now)
    if (client.unfinished >= this.#options.maxUnfinishedHandshakes) return new errors.FST_RELAY_TOO_MANY_UNFINISHED(key)
    if (!client.rate.take(now)) return new errors.FST_RELAY_HANDSHAKE_RATE(key)
    client.unfinished++
    return () => { client.unfinished-- }
  }

  #client (key: string, now: number): Client {
    const known = this.#clients.get(key)
    if (known !== undefined) {
      this.#clients.delete(key)
      this.#clients.set(key, known)
      return known
    }
    if (this.#clients.size >= MAX_CLIENTS) this.#forgetOne()
    const rate = this.#options.handshakesPerSecond
    const client = { unfinished: 0, rate: new TokenBucket(rate, rate * BURST_SECONDS, now) }
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
