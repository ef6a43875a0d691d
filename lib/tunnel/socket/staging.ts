import type { Socket } from 'node:net'

/**
 * Memory for writes to plain sockets. The system mostly takes all of a write at once; then the same memory serves the next
 * one, of whichever socket.
 */
class Slab {
  readonly #size: number
  readonly #usualWrite: number
  #memory: Buffer = Buffer.alloc(0)

  constructor (size: number, usualWrite: number) {
    this.#size = size
    this.#usualWrite = usualWrite
  }

  forWrite (size: number): Buffer {
    // Not before most of it waits in sockets: else little could keep a slab for itself.
    if (this.#memory.length < this.#usualWrite) this.#memory = Buffer.allocUnsafeSlow(this.#size)
    return size <= this.#memory.length ? this.#memory : Buffer.allocUnsafeSlow(size)
  }

  /** The first `length` bytes of `staging` wait in a socket. */
  keep (staging: Buffer, length: number): void {
    if (staging === this.#memory) this.#memory = staging.subarray(length)
  }
}

/** What a socket takes before its `highWaterMark` is reached: something small that waits must not keep much. */
const SMALL_WRITE = 64 * 1024
const small = new Slab(128 * 1024, SMALL_WRITE)
/** One chunk comes to at most 640 KiB, but for the smallest of datagrams in another framing. */
const large = new Slab(1024 * 1024, 640 * 1024)

/** Memory for a write of at most `size` bytes, which begins at its start; `writeStaged` is next. */
export function stagingFor (size: number): Buffer {
  return (size <= SMALL_WRITE ? small : large).forWrite(size)
}

/**
 * Writes the first `length` bytes of staging memory. What the socket has not passed on yet is not written over.
 * @returns what `socket.write` does
 */
export function writeStaged (socket: Socket, staging: Buffer, length: number): boolean {
  const hasRoom = socket.write(staging.subarray(0, length))
  if (socket.writableLength > 0) {
    small.keep(staging, length)
    large.keep(staging, length)
  }
  return hasRoom
}
