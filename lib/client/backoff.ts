/** The shortest and the longest wait before a new attempt, in milliseconds. */
export const BACKOFF_MIN_MS = 250
export const BACKOFF_MAX_MS = 16_000

/**
 * Exponential backoff with jitter: each wait is a random time between half of a limit and the limit, and the
 * limit doubles from 0.5 s to 16 s. So the first wait is at least 0.25 s and none is longer than 16 s.
 */
export class Backoff {
  #limit = BACKOFF_MIN_MS * 2

  /** The next wait in milliseconds. */
  next (): number {
    const half = this.#limit / 2
    this.#limit = Math.min(this.#limit * 2, BACKOFF_MAX_MS)
    return Math.round(half + Math.random() * half)
  }

  /** Begins again with the shortest wait. */
  reset (): void {
    this.#limit = BACKOFF_MIN_MS * 2
  }
}
