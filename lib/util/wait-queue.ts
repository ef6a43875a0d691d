/** What a queue holds at most, of both. */
export interface WaitCapacity {
  readonly datagrams: number
  readonly bytes: number
}

/** Datagrams that came together, one behind the other in one piece of memory. */
interface Run {
  bytes: Buffer
  /** Where each of them ends. */
  ends: readonly number[]
  /** The first one that is still here, and where it begins. */
  next: number
  start: number
  /** By `performance.now()`. */
  since: number
}

/** What leaves the queue: whole datagrams of one run. */
export interface Taken {
  bytes: Buffer
  count: number
  /** When they were added, by `performance.now()`. */
  since: number
}

/**
 * The datagrams that wait while a socket is blocked. WireGuard's handshake messages leave first. When the capacity is
 * exceeded the oldest data is dropped, and handshake messages only after that.
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

  /** Whether nothing but handshake messages waits. */
  get hasNoData (): boolean {
    return this.#data.length === 0
  }

  /**
   * Takes datagrams in; the queue keeps the memory.
   * @param ends where each datagram ends in `bytes`
   * @param isHandshake whether they must not wait behind data
   * @returns how many datagrams had to go for it, which may be some of these
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

  /** Gives the next datagrams to send: one, and more of its run as long as they are no more than `maxBytes` together. */
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

  /** Lets go of the first datagrams of a lane, all of one run. */
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
