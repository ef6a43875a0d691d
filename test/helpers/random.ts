/** Random numbers that come again with the same seed; a failed test names it. */
export class SeededRandom {
  readonly seed: number
  #state: number

  constructor (seed: number = Math.floor(Math.random() * 2 ** 32)) {
    this.seed = seed
    this.#state = seed
  }

  /** From 0 up to, and without, `end`: Mulberry32. */
  below (end: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor(((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32 * end)
  }

  /** From `first` to `last`, both included. */
  between (first: number, last: number): number {
    return first + this.below(last - first + 1)
  }

  pick<T> (items: readonly T[]): T {
    return items[this.below(items.length)]!
  }

  bytes (length: number): Buffer {
    const bytes = Buffer.alloc(length)
    for (let i = 0; i < length; i++) bytes[i] = this.below(256)
    return bytes
  }

  /** Cuts `bytes` into chunks of 1 to `longest` bytes. */
  chunks (bytes: Buffer, longest: number): Buffer[] {
    const chunks: Buffer[] = []
    for (let position = 0; position < bytes.length;) {
      const end = position + this.between(1, longest)
      chunks.push(bytes.subarray(position, end))
      position = end
    }
    return chunks
  }
}
