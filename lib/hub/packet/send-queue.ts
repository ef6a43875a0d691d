import type { Encoding } from '../../framing/framing.ts'
import { WaitQueue, type Taken, type WaitCapacity } from '../../util/wait-queue.ts'
import { isShared } from '../../tunnel/socket/shared-reads.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'

/** The most that may wait for a peer whose socket is blocked. The client's limit is in lib/client/connection/sender.ts. */
const CAPACITY: WaitCapacity = { datagrams: 512, bytes: 256 * 1024 }

/** Waiting datagrams are stored and written in portions of this many bytes. */
const WRITE_SIZE = 64 * 1024

/** Most writes that may wait in a tunnel, however small. Each takes memory besides its bytes. */
const MAX_WRITES = 16

/** Array capacity kept between chunks, in pieces. */
const MAX_KEPT_PIECES = 2048

/** How a piece is written in the receiver's framing. */
const VERBATIM = 0
const ENCODE = 1
const ENCODE_STAMPED = 2

/** The owner of a queue, which keeps the counts. */
export interface QueueOwner {
  datagramsOut: number
  bytesOut: number
  /** A datagram must wait behind this many others. */
  waits: (behind: number) => void
  /** This many waiting datagrams were written. */
  waited: (milliseconds: number, count: number) => void
  /** This many datagrams were dropped because the queue was full. */
  overflowed: (count: number) => void
}

/**
 * The output queue of one peer. Datagrams from one chunk leave in one write. Adjacent ones in the receiver's framing
 * are written from the chunk's own memory; others are copied together.
 *
 * While the socket is blocked, datagrams wait here as copies, so that a few small ones do not pin large chunks.
 * WireGuard's handshake messages go first. When the queue is full, the oldest data is dropped.
 */
export class SendQueue {
  readonly #tunnel: Tunnel
  readonly #encoding: Encoding
  readonly #owner: QueueOwner
  // The pieces of the current chunk, as parallel arrays to avoid an allocation per piece. While the socket is
  // blocked, each piece is one datagram.
  #pieceCount = 0
  #datagramCount = 0
  readonly #sources: Buffer[] = []
  readonly #starts: number[] = []
  readonly #ends: number[] = []
  readonly #modes: number[] = []
  #waiting: WaitQueue | undefined
  #owedControl: Buffer | undefined
  /** Writes since the tunnel's buffer was last empty. */
  #writes = 0
  readonly #onTaken = (): void => this.#drain()

  constructor (tunnel: Tunnel, encoding: Encoding, owner: QueueOwner) {
    this.#tunnel = tunnel
    this.#encoding = encoding
    this.#owner = owner
    tunnel.onDrain(this.#onTaken)
  }

  get isBlocked (): boolean {
    return this.#tunnel.writableNeedDrain || (this.#writes >= MAX_WRITES && this.#tunnel.writableLength > 0)
  }

  /** Datagrams waiting for the socket. */
  get length (): number {
    return this.#waiting?.length ?? 0
  }

  /**
   * Adds a datagram. The parameters are those of `DatagramSink.datagram`.
   * @param encoding the encoding of `source[frame..end)`; undefined for a bare datagram
   * @param isHandshake true for a WireGuard message that must not wait behind data
   * @returns true if the caller must call `flush`
   */
  add (source: Buffer, frame: number, start: number, end: number, stamped: boolean, encoding: Encoding | undefined, isHandshake: boolean): boolean {
    const { isBlocked } = this
    if (isBlocked && isHandshake) {
      this.#holdBack(source, frame, start, end, encoding)
      return false
    }
    const last = this.#pieceCount - 1
    this.#datagramCount++
    if (encoding === this.#encoding) {
      // While blocked, keep datagrams separate: they may be dropped one by one.
      if (!isBlocked && last >= 0 && this.#modes[last] === VERBATIM && this.#ends[last] === frame && this.#sources[last] === source) {
        this.#ends[last] = end
        return false
      }
      this.#push(source, frame, end, VERBATIM)
    } else {
      this.#push(source, start, end, stamped ? ENCODE_STAMPED : ENCODE)
    }
    return last < 0
  }

  /** Writes the gathered datagrams, or queues them while the socket is blocked. */
  flush (): void {
    const count = this.#pieceCount
    if (count === 0) return
    try {
      if (this.isBlocked) this.#waitGathered(count)
      else this.#writeGathered(count)
    } finally {
      // Always forget the pieces: the chunk's memory is about to be reused.
      this.#forgetGathered()
    }
  }

  /** Sends a control frame or keepalive. While the socket is blocked, only the newest is kept. */
  control (frame: Buffer): void {
    if (this.isBlocked) {
      this.#owedControl = frame
    } else {
      this.flush()
      this.#write(frame)
    }
  }

  /**
   * Drops all waiting datagrams.
   * @returns how many datagrams were dropped
   */
  clear (): number {
    const count = this.length + this.#datagramCount
    this.#waiting = undefined
    this.#owedControl = undefined
    this.#forgetGathered()
    return count
  }

  #forgetGathered (): void {
    if (this.#pieceCount > MAX_KEPT_PIECES) this.#starts.length = this.#ends.length = this.#modes.length = 0
    this.#pieceCount = 0
    this.#datagramCount = 0
    this.#sources.length = 0
  }

  #push (source: Buffer, start: number, end: number, mode: number): void {
    const index = this.#pieceCount++
    this.#sources[index] = source
    this.#starts[index] = start
    this.#ends[index] = end
    this.#modes[index] = mode
  }

  #writeGathered (count: number): void {
    this.#owner.datagramsOut += this.#datagramCount
    if (this.#canLeaveAsItIs(count)) return this.#write(this.#sources[0]!.subarray(this.#starts[0], this.#ends[0]))
    const size = this.#joinedSize(0, count)
    const staging = this.#tunnel.stage(size)
    if (staging === undefined) this.#writeJoined(count, size)
    else this.#writeStaged(count, staging)
  }

  /** True if there is a single piece whose memory the socket may keep. */
  #canLeaveAsItIs (count: number): boolean {
    if (count > 1 || this.#modes[0] !== VERBATIM || isShared(this.#sources[0]!)) return false
    // In a non-empty buffer it may wait for long. Then keep it only if it fills at least half of its memory.
    return this.#tunnel.writableLength === 0 || (this.#ends[0]! - this.#starts[0]!) * 2 >= this.#sources[0]!.buffer.byteLength
  }

  #writeStaged (count: number, staging: Buffer): void {
    const length = this.#join(0, count, staging)
    this.#owner.bytesOut += length
    this.#writes = 1
    this.#tunnel.writeStaged(staging, length)
  }

  #writeJoined (count: number, size: number): void {
    // Data that waits in the socket must not pin a pooled slab.
    const joined = this.#tunnel.writableLength > 0 ? Buffer.allocUnsafeSlow(size) : Buffer.allocUnsafe(size)
    this.#write(joined.subarray(0, this.#join(0, count, joined)))
  }

  /** The most bytes the pieces can take. */
  #joinedSize (from: number, to: number): number {
    let size = 0
    for (let i = from; i < to; i++) size += this.#sizeOf(i)
    return size
  }

  #sizeOf (piece: number): number {
    const size = this.#ends[piece]! - this.#starts[piece]!
    return this.#modes[piece] === VERBATIM ? size : size + this.#encoding.maxOverhead
  }

  /**
   * Copies pieces into `target`.
   * @param ends receives the end offset of each piece
   * @returns the number of bytes written
   */
  #join (from: number, to: number, target: Buffer, ends?: number[]): number {
    let offset = 0
    for (let i = from; i < to; i++) {
      const source = this.#sources[i]!
      const mode = this.#modes[i]!
      if (mode === VERBATIM) offset += source.copy(target, offset, this.#starts[i], this.#ends[i])
      else offset = this.#encoding.encode(target, offset, source, this.#starts[i]!, this.#ends[i]!, mode === ENCODE_STAMPED)
      ends?.push(offset)
    }
    return offset
  }

  /** Queues a handshake message on its own, ahead of all data. */
  #holdBack (source: Buffer, frame: number, start: number, end: number, encoding: Encoding | undefined): void {
    const bytes = Buffer.allocUnsafeSlow(end - frame + this.#encoding.maxOverhead)
    const length = encoding === this.#encoding ? source.copy(bytes, 0, frame, end) : this.#encoding.encode(bytes, 0, source, start, end, false)
    this.#wait(bytes.subarray(0, length), [length], true)
  }

  /** Queues the gathered datagrams until the socket drains. */
  #waitGathered (count: number): void {
    for (let from = 0; from < count;) {
      let to = from + 1
      // Limit each portion: dropping part of it frees no memory until the rest is gone.
      for (let size = this.#sizeOf(from); to < count && to - from < CAPACITY.datagrams && (size += this.#sizeOf(to)) <= WRITE_SIZE;) to++
      const bytes = Buffer.allocUnsafeSlow(this.#joinedSize(from, to))
      const ends: number[] = []
      const length = this.#join(from, to, bytes, ends)
      this.#wait(bytes.subarray(0, length), ends, false)
      from = to
    }
  }

  #wait (bytes: Buffer, ends: number[], isHandshake: boolean): void {
    for (let i = 0; i < ends.length; i++) this.#owner.waits(this.length + i)
    const dropped = (this.#waiting ??= new WaitQueue(CAPACITY)).add(bytes, ends, isHandshake)
    if (dropped > 0) this.#owner.overflowed(dropped)
  }

  #drain (): void {
    if (this.#tunnel.isDestroyed) return
    this.#tunnel.cork()
    try {
      this.#writeAllThatWaits()
    } finally {
      this.#tunnel.uncork()
    }
  }

  #writeAllThatWaits (): void {
    if (this.#owedControl !== undefined) {
      const frame = this.#owedControl
      this.#owedControl = undefined
      this.#write(frame)
    }
    while (!this.isBlocked && this.length > 0) this.#writeWaiting(this.#waiting!.take(WRITE_SIZE)!)
  }

  #writeWaiting ({ bytes, count, since }: Taken): void {
    this.#owner.waited(performance.now() - since, count)
    this.#owner.datagramsOut += count
    this.#write(bytes)
  }

  #write (bytes: Buffer): void {
    this.#owner.bytesOut += bytes.length
    if (this.#tunnel.writableLength === 0) this.#writes = 0
    // Only the last write of a full batch needs a callback.
    if (++this.#writes < MAX_WRITES) this.#tunnel.write(bytes)
    else this.#tunnel.write(bytes, this.#onTaken)
  }
}
