import type { Duplex } from 'node:stream'
import type { Encoding } from '../framing/framing.ts'
import { WaitQueue } from '../wait-queue.ts'

/** What a queue that may go on writing hands to the socket at once, in bytes. */
const WRITE_SIZE = 64 * 1024

/** How a piece gets into the receiver's framing. */
const VERBATIM = 0
const ENCODE = 1
const ENCODE_STAMPED = 2

/** Whose queue it is: it keeps the counts up to date. */
export interface QueueOwner {
  datagramsOut: number
  bytesOut: number
  /** A datagram has to wait, behind so many others. */
  waits: (behind: number) => void
  /** One that had to wait has left. */
  waited: (milliseconds: number) => void
  /** So many were dropped because the queue was full. */
  overflowed: (count: number) => void
}

/**
 * What goes out to one peer. Datagrams found in one chunk are gathered and leave in one write: as the same memory
 * when they lie next to each other in the receiver's framing, else copied together.
 *
 * While the socket is blocked, datagrams wait here as copies of their own, so that a few small ones cannot keep
 * large chunks alive; WireGuard's handshake messages go first, and when there is no room the oldest data goes.
 */
export class SendQueue {
  readonly #tunnel: Duplex
  readonly #encoding: Encoding
  readonly #owner: QueueOwner
  // The pieces gathered from the current chunk, as parallel arrays: nothing is allocated for a piece.
  #pieceCount = 0
  #datagramCount = 0
  readonly #sources: Buffer[] = []
  readonly #starts: number[] = []
  readonly #ends: number[] = []
  readonly #modes: number[] = []
  readonly #waiting = new WaitQueue()
  #owedControl: Buffer | undefined

  constructor (tunnel: Duplex, encoding: Encoding, owner: QueueOwner) {
    this.#tunnel = tunnel
    this.#encoding = encoding
    this.#owner = owner
    tunnel.on('drain', () => this.#drain())
  }

  get isBlocked (): boolean {
    return this.#tunnel.writableNeedDrain
  }

  /** Datagrams that wait for the socket. */
  get length (): number {
    return this.#waiting.length
  }

  /**
   * Adds a datagram; the parameters are those of `DatagramSink.datagram`.
   * @param encoding what `source[frame..end)` is encoded in; undefined for a bare datagram
   * @param isHandshake a WireGuard message that must not wait behind data
   * @returns whether `flush` is owed
   */
  add (source: Buffer, frame: number, start: number, end: number, stamped: boolean, encoding: Encoding | undefined, isHandshake: boolean): boolean {
    if (this.#tunnel.writableNeedDrain) {
      this.#enqueue(source, frame, start, end, stamped, encoding, isHandshake)
      return false
    }
    const last = this.#pieceCount - 1
    this.#datagramCount++
    if (encoding === this.#encoding) {
      if (last >= 0 && this.#modes[last] === VERBATIM && this.#ends[last] === frame && this.#sources[last] === source) {
        this.#ends[last] = end
        return false
      }
      this.#push(source, frame, end, VERBATIM)
    } else {
      this.#push(source, start, end, stamped ? ENCODE_STAMPED : ENCODE)
    }
    return last < 0
  }

  /** Writes what has been gathered. */
  flush (): void {
    const count = this.#pieceCount
    if (count === 0) return
    this.#owner.datagramsOut += this.#datagramCount
    const bytes = count === 1 && this.#modes[0] === VERBATIM && !this.#wouldWaste()
      ? this.#sources[0]!.subarray(this.#starts[0], this.#ends[0])
      : this.#join(count)
    this.#pieceCount = 0
    this.#datagramCount = 0
    this.#sources.length = 0
    this.#write(bytes)
  }

  /**
   * Sends a control frame or keepalive. While the socket is blocked only the newest is kept: it is owed, the
   * earlier ones are not any more.
   */
  control (frame: Buffer): void {
    if (this.#tunnel.writableNeedDrain) {
      this.#owedControl = frame
    } else {
      this.flush()
      this.#write(frame)
    }
  }

  /** Forgets what waits. @returns how many datagrams that were */
  clear (): number {
    const count = this.length + this.#datagramCount
    this.#waiting.clear()
    this.#owedControl = undefined
    this.#pieceCount = 0
    this.#datagramCount = 0
    this.#sources.length = 0
    return count
  }

  #push (source: Buffer, start: number, end: number, mode: number): void {
    const index = this.#pieceCount++
    this.#sources[index] = source
    this.#starts[index] = start
    this.#ends[index] = end
    this.#modes[index] = mode
  }

  /** Whether the one piece would wait in the socket for long, and keep a chunk alive of which it is the smaller part. */
  #wouldWaste (): boolean {
    return this.#tunnel.writableLength > 0 && (this.#ends[0]! - this.#starts[0]!) * 2 < this.#sources[0]!.length
  }

  #join (count: number): Buffer {
    let size = 0
    for (let i = 0; i < count; i++) size += this.#ends[i]! - this.#starts[i]! + this.#encoding.maxOverhead
    // What has to wait in the socket must not hold a slab that others share, either.
    const joined = this.#tunnel.writableLength > 0 ? Buffer.allocUnsafeSlow(size) : Buffer.allocUnsafe(size)
    let offset = 0
    for (let i = 0; i < count; i++) {
      const source = this.#sources[i]!
      const mode = this.#modes[i]!
      if (mode === VERBATIM) offset += source.copy(joined, offset, this.#starts[i], this.#ends[i])
      else offset = this.#encoding.encode(joined, offset, source, this.#starts[i]!, this.#ends[i]!, mode === ENCODE_STAMPED)
    }
    return joined.subarray(0, offset)
  }

  #enqueue (source: Buffer, frame: number, start: number, end: number, stamped: boolean, encoding: Encoding | undefined, isHandshake: boolean): void {
    let bytes: Buffer
    if (encoding === this.#encoding) {
      bytes = Buffer.allocUnsafeSlow(end - frame)
      source.copy(bytes, 0, frame, end)
    } else {
      bytes = Buffer.allocUnsafeSlow(end - start + this.#encoding.maxOverhead)
      bytes = bytes.subarray(0, this.#encoding.encode(bytes, 0, source, start, end, stamped))
    }
    this.#owner.waits(this.length)
    const dropped = this.#waiting.add(bytes, isHandshake).length
    if (dropped > 0) this.#owner.overflowed(dropped)
  }

  #drain (): void {
    if (this.#owedControl !== undefined) {
      const frame = this.#owedControl
      this.#owedControl = undefined
      this.#write(frame)
    }
    while (this.length > 0 && !this.#tunnel.writableNeedDrain) {
      const now = performance.now()
      const batch: Buffer[] = []
      let size = 0
      while (this.length > 0 && size < WRITE_SIZE) {
        const bytes = this.#waiting.shift()!
        size += bytes.length
        this.#owner.waited(now - this.#waiting.lastSince)
        batch.push(bytes)
      }
      this.#owner.datagramsOut += batch.length
      this.#write(Buffer.concat(batch, size))
    }
  }

  #write (bytes: Buffer): void {
    this.#owner.bytesOut += bytes.length
    this.#tunnel.write(bytes)
  }
}
