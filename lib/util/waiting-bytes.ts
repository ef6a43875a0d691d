const FIRST_SIZE = 1024

/** Waiting bytes in one buffer. Kept as separate chunks, single bytes would take a hundred times the memory. */
export class WaitingBytes {
  #memory = Buffer.alloc(0)
  #length = 0

  get length (): number {
    return this.#length
  }

  add (chunk: Buffer): void {
    const length = this.#length + chunk.length
    if (length > this.#memory.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(FIRST_SIZE, this.#memory.length * 2, length))
      this.#memory.copy(grown, 0, 0, this.#length)
      this.#memory = grown
    }
    chunk.copy(this.#memory, this.#length)
    this.#length = length
  }

  /** Returns all bytes and empties the buffer. */
  take (): Buffer {
    const bytes = this.#memory.subarray(0, this.#length)
    this.#memory = Buffer.alloc(0)
    this.#length = 0
    return bytes
  }
}
