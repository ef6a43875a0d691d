/** Random numbers that come again with the same seed: Mulberry32. */
export class Random {
  #state

  constructor (seed) {
    this.#state = seed
  }

  /** From 0 up to, and without, 1. */
  next () {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** From `first` to `last`, both included. */
  between (first, last) {
    return first + Math.floor(this.next() * (last - first + 1))
  }

  chance (probability) {
    return this.next() < probability
  }

  pick (items) {
    return items[Math.floor(this.next() * items.length)]
  }

  bytes (length) {
    const bytes = Buffer.alloc(length)
    for (let i = 0; i < length; i++) bytes[i] = this.between(0, 255)
    return bytes
  }

  /** One of the keys of `weights`, as often as its weight says. */
  weighted (weights) {
    let left = this.next() * Object.values(weights).reduce((sum, weight) => sum + weight, 0)
    for (const [key, weight] of Object.entries(weights)) {
      left -= weight
      if (left < 0) return key
    }
    return Object.keys(weights).at(-1)
  }
}
