/** The shortest and the longest wait before a new attempt, in milliseconds. */
export const BACKOFF_MIN_MS = 250
export const BACKOFF_MAX_MS = 16_000
/** The longest wait while this machine has no network: an attempt then reaches no relay and costs it nothing. */
export const NO_NETWORK_MAX_MS = 1000
/** While the relay is down, the wait grows by this part of the outage. */
const OUTAGE_PART = 0.1

/**
 * Why another attempt is needed:
 * - `no-network`: nothing left this machine, or the name could not be looked up
 * - `down`: the connection was cut, or no relay takes tunnels at the moment; an attempt costs little
 * - `refusing`: the relay is up, and each attempt costs it work
 */
export type RetryKind = 'no-network' | 'down' | 'refusing'

/**
 * The wait before a new attempt: a random time between half of a limit and the limit. While the relay refuses, the limit
 * doubles from 0.5 s to 16 s. While it is down, the limit is 0.5 s and a tenth of the outage, so after an outage of 20 s all
 * clients are back within 2.5 s. Without a network the limit is 1 s.
 */
export class Backoff {
  #limit = BACKOFF_MIN_MS * 2
  #since: number | undefined

  /**
   * The next wait in milliseconds.
   * @param taken how long the failed attempt took, in milliseconds: while the relay is down, it counts as part of the wait
   */
  next (kind: RetryKind = 'refusing', taken = 0): number {
    const now = performance.now()
    this.#since ??= now
    if (kind === 'no-network') return between(NO_NETWORK_MAX_MS)
    if (kind === 'down') {
      const limit = Math.min(BACKOFF_MIN_MS * 2 + (now - this.#since) * OUTAGE_PART, BACKOFF_MAX_MS)
      return Math.max(between(BACKOFF_MIN_MS * 2), Math.round(between(limit) - taken))
    }
    const wait = between(this.#limit)
    this.#limit = Math.min(this.#limit * 2, BACKOFF_MAX_MS)
    return wait
  }

  /** Starts again with the shortest wait. */
  reset (): void {
    this.#limit = BACKOFF_MIN_MS * 2
    this.#since = undefined
  }
}

function between (limit: number): number {
  return Math.round(limit / 2 + Math.random() * limit / 2)
}
