/** This many cuts in a row, after about the same silence, show a timeout on the path. */
const CUTS = 3
/** Shorter silences prove nothing, in milliseconds. */
const MIN_SILENCE_MS = 3000
/** How much the silences may differ: by a tenth, or by `SILENCE_SPREAD_MS` milliseconds if that is more. */
const SILENCE_SPREAD = 0.1
const SILENCE_SPREAD_MS = 1000

/** Detects that something on the path cuts idle connections. */
export class SilentCuts {
  #silences: number[] = []

  /**
   * Notes that a connection was cut after this many milliseconds without traffic.
   * @returns that time, in milliseconds, if the last three connections were cut after about the same one
   */
  note (silence: number): number | undefined {
    this.#silences = [...this.#silences, silence].slice(-CUTS)
    const longest = Math.max(...this.#silences)
    const shortest = Math.min(...this.#silences)
    if (this.#silences.length < CUTS || shortest < MIN_SILENCE_MS) return
    if (longest - shortest <= Math.max(SILENCE_SPREAD_MS, SILENCE_SPREAD * longest)) return Math.round(shortest)
  }

  /** Call this when a connection ended in another way. */
  reset (): void {
    this.#silences = []
  }
}
