import { TokenBucket } from '../util/token-bucket.ts'

const PER_SECOND = 1 / 60
const BURST = 5

interface Reason {
  bucket: TokenBucket
  suppressed: number
}

/** Limits repeated log lines: five at once for each reason, then one a minute. It never forgets a reason, so use few. */
export class LogLimit {
  readonly #reasons = new Map<string, Reason>()

  /**
   * @param now in milliseconds, from a monotonic clock
   * @returns the number of lines suppressed since the last one, or undefined if this line must be suppressed
   */
  take (reason: string, now: number): number | undefined {
    let state = this.#reasons.get(reason)
    if (state === undefined) {
      state = { bucket: new TokenBucket(PER_SECOND, BURST, now), suppressed: 0 }
      this.#reasons.set(reason, state)
    }
    if (!state.bucket.take(now)) {
      state.suppressed++
      return undefined
    }
    const { suppressed } = state
    state.suppressed = 0
    return suppressed
  }
}
