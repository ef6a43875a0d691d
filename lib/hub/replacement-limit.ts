import { errors } from '../errors.ts'
import { TokenBucket } from '../util/token-bucket.ts'

const PER_MINUTE = 5

/** Stops two devices that share an identity from replacing each other endlessly. */
export class ReplacementLimit {
  readonly #byName = new Map<string, TokenBucket>()

  /**
   * Counts one replacement of the identity `name`.
   * @throws FST_RELAY_REPLACED_TOO_OFTEN above five per minute
   */
  count (name: string, now: number): void {
    let bucket = this.#byName.get(name)
    if (bucket === undefined) {
      bucket = new TokenBucket(PER_MINUTE / 60, PER_MINUTE, now)
      this.#byName.set(name, bucket)
    }
    if (!bucket.take(now)) throw new errors.FST_RELAY_REPLACED_TOO_OFTEN()
  }

  /** Removes identities with no recent replacements. */
  sweep (now: number): void {
    for (const [name, bucket] of this.#byName) {
      if (bucket.isFull(now)) this.#byName.delete(name)
    }
  }
}
