const BURST_SECONDS = 5

/** Returns a rate limit with a burst of five seconds' worth of tokens. All options that are a rate per second use it. */
export function rateLimit (perSecond: number, now: number): TokenBucket {
  return new TokenBucket(perSecond, perSecond * BURST_SECONDS, now)
}

/**
 * A rate limit: `perSecond` on average, `burst` at once. Times are in milliseconds, from a monotonic clock.
 */
export class TokenBucket {
  readonly #perMs: number
  readonly #burst: number
  #tokens: number
  #filledAt: number

  constructor (perSecond: number, burst: number, now: number) {
    this.#perMs = perSecond / 1000
    this.#burst = burst
    this.#tokens = burst
    this.#filledAt = now
  }

  /** Takes one token. Returns false if none is left. */
  take (now: number): boolean {
    this.#fill(now)
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }

  /** Returns true if every token taken has been refilled. */
  isFull (now: number): boolean {
    this.#fill(now)
    return this.#tokens === this.#burst
  }

  #fill (now: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#filledAt) * this.#perMs)
    this.#filledAt = now
  }
}
