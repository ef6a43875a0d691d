import { TokenBucket } from './token-bucket.ts'

const PER_SECOND = 1 / 60
const BURST = 5

interface Reason {
  bucket: TokenBucket
  suppressed: number
}

/** Bounds how often the same thing is logged: five times at once, then once a minute. The reasons have to be few. */
export class LogLimit {
  readonly #reasons = new Map<string, Reason>()

  /** @returns how many lines were suppressed since the last one, or undefined where this one is to be */
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
