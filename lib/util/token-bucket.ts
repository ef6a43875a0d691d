const BURST_SECONDS = 5

/** A rate limit that lets five times as many through at once, as every option that is a number per second means it. */
export function rateLimit (perSecond: number, now: number): TokenBucket {
  return new TokenBucket(perSecond, perSecond * BURST_SECONDS, now)
}

/**
 * A rate limit: `perSecond` on average, `burst` at once. Times are in milliseconds of any clock that does not go back.
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

  /** Takes one token; false when there is none. */
  take (now: number): boolean {
    this.#fill(now)
    if (this.#tokens < 1) return false
    this.#tokens--
    return true
  }

  /** Whether nothing has been taken that has not come back since. */
  isFull (now: number): boolean {
    this.#fill(now)
    return this.#tokens === this.#burst
  }

  #fill (now: number): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#filledAt) * this.#perMs)
    this.#filledAt = now
  }
}
