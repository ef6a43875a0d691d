/** How many cuts in a row tell of a rule. */
const CUTS = 3
/** Silence below this says nothing, in milliseconds. */
const MIN_SILENCE_MS = 3000
/** How far apart the silences before such cuts may be: a tenth, or so many milliseconds. */
const SILENCE_SPREAD = 0.1
const SILENCE_SPREAD_MS = 1000

/** Finds out that something on the way cuts connections on which nothing passes for some time. */
export class SilentCuts {
  #silences: number[] = []

  /**
   * Notes that a connection was cut after so many milliseconds in which nothing passed.
   * @returns that silence, in milliseconds, if the last three connections were cut after the same one
   */
  note (silence: number): number | undefined {
    this.#silences = [...this.#silences, silence].slice(-CUTS)
    const longest = Math.max(...this.#silences)
    const shortest = Math.min(...this.#silences)
    if (this.#silences.length < CUTS || shortest < MIN_SILENCE_MS) return
    if (longest - shortest <= Math.max(SILENCE_SPREAD_MS, SILENCE_SPREAD * longest)) return Math.round(shortest)
  }

  /** The next connection did not end by a cut. */
  reset (): void {
    this.#silences = []
  }
}
