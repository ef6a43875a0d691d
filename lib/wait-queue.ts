const MAX_BYTES = 256 * 1024
const MAX_DATAGRAMS = 512

interface Waiting {
  datagram: Buffer
  /** By `performance.now()`. */
  since: number
}

/**
 * The datagrams that wait while a socket is blocked: at most 512 of them and 256 KiB. WireGuard's handshake
 * messages go first; when there is too much, the oldest data goes, and handshake messages only after that.
 */
export class WaitQueue {
  readonly #handshakes: Waiting[] = []
  readonly #data: Waiting[] = []
  #bytes = 0
  #lastSince = 0

  get length (): number {
    return this.#handshakes.length + this.#data.length
  }

  /** When the datagram that `shift` gave last was added, by `performance.now()`. */
  get lastSince (): number {
    return this.#lastSince
  }

  /**
   * Takes a datagram in; the queue keeps the memory.
   * @param isHandshake a message that must not wait behind data
   * @returns what had to go for it, which may be itself
   */
  add (datagram: Buffer, isHandshake: boolean): Buffer[] {
    const lane = isHandshake ? this.#handshakes : this.#data
    lane.push({ datagram, since: performance.now() })
    this.#bytes += datagram.length
    const dropped: Buffer[] = []
    while (this.#bytes > MAX_BYTES || this.length > MAX_DATAGRAMS) {
      const oldest = (this.#data.shift() ?? this.#handshakes.shift())!.datagram
      this.#bytes -= oldest.length
      dropped.push(oldest)
    }
    return dropped
  }

  /** The next datagram to send. */
  shift (): Buffer | undefined {
    const next = this.#handshakes.shift() ?? this.#data.shift()
    if (next === undefined) return undefined
    this.#bytes -= next.datagram.length
    this.#lastSince = next.since
    return next.datagram
  }

  clear (): void {
    this.#handshakes.length = 0
    this.#data.length = 0
    this.#bytes = 0
  }
}
