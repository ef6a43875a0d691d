/** The capacity of a queue. Both limits apply. */
export interface WaitCapacity {
  readonly datagrams: number
  readonly bytes: number
}

/** Datagrams that arrived together, contiguous in one buffer. */
interface Run {
  bytes: Buffer
  /** The end offset of each datagram. */
  ends: readonly number[]
  /** The index of the first datagram still queued. `start` is its offset. */
  next: number
  start: number
  /** The time when they were added, from `performance.now()`. */
  since: number
}

/** Whole datagrams of one run, taken from the queue. */
export interface Taken {
  bytes: Buffer
  count: number
  /** The time when they were added, from `performance.now()`. */
  since: number
}

/**
 * A queue of datagrams that wait while a socket is blocked. WireGuard's handshake messages leave first. Above its capacity, the
 * queue drops the oldest data, and handshake messages only when no data is left.
 */
export class WaitQueue {
  readonly #handshakes: Run[] = []
  readonly #data: Run[] = []
  readonly #capacity: WaitCapacity
  #length = 0
  #bytes = 0

  constructor (capacity: WaitCapacity) {
    this.#capacity = capacity
  }

  get length (): number {
    return this.#length
  }

  /** True if the queue is empty or holds only handshake messages. */
  get hasNoData (): boolean {
    return this.#data.length === 0
  }

  /**
   * Adds datagrams. The queue keeps `bytes`, so the caller must not reuse it.
   * @param ends the end offset of each datagram in `bytes`
   * @param isHandshake true if the datagrams must not wait behind data
   * @returns the number of datagrams dropped to make room, which may include new ones
   */
  add (bytes: Buffer, ends: readonly number[], isHandshake: boolean): number {
    const lane = isHandshake ? this.#handshakes : this.#data
    lane.push({ bytes, ends, next: 0, start: 0, since: performance.now() })
    this.#bytes += bytes.length
    this.#length += ends.length
    const { datagrams: maxDatagrams, bytes: maxBytes } = this.#capacity
    let dropped = 0
    for (; this.#bytes > maxBytes || this.#length > maxDatagrams; dropped++) {
      this.#advance(this.hasNoData ? this.#handshakes : this.#data, 1)
    }
    return dropped
  }

  /** Takes the next datagram, and as many more of its run as fit into `maxBytes` together. Returns undefined if the queue is empty. */
  take (maxBytes: number): Taken | undefined {
    const lane = this.#handshakes.length > 0 ? this.#handshakes : this.#data
    const run = lane[0]
    if (run === undefined) return undefined
    const { bytes, ends, next, start, since } = run
    let last = next
    while (last + 1 < ends.length && ends[last + 1]! - start <= maxBytes) last++
    const count = last + 1 - next
    this.#advance(lane, count)
    return { bytes: bytes.subarray(start, ends[last]), count, since }
  }

  /** Removes the first datagrams of a lane. All of them belong to one run. */
  #advance (lane: Run[], count: number): void {
    const run = lane[0]!
    const before = run.start
    run.next += count
    run.start = run.ends[run.next - 1]!
    this.#length -= count
    this.#bytes -= run.start - before
    if (run.next === run.ends.length) lane.shift()
  }
}
