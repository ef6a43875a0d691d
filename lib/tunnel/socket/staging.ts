import type { Socket } from 'node:net'

/**
 * Memory for writes to plain sockets. The system mostly takes a whole write at once. The same memory then serves the next
 * write, to any socket.
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
    // Keep the slab until most of it is in use. Replacing it sooner would let small writes pin whole slabs.
    if (this.#memory.length < this.#usualWrite) this.#memory = Buffer.allocUnsafeSlow(this.#size)
    return size <= this.#memory.length ? this.#memory : Buffer.allocUnsafeSlow(size)
  }

  /** Reserves the first `length` bytes of `staging`, which still wait in a socket. */
  keep (staging: Buffer, length: number): void {
    if (staging === this.#memory) this.#memory = staging.subarray(length)
  }
}

/** The `highWaterMark` of a socket, in bytes. Smaller writes get the smaller slab, so that they cannot pin the large one. */
const SMALL_WRITE = 64 * 1024
const small = new Slab(128 * 1024, SMALL_WRITE)
/** One chunk becomes at most 640 KiB, except for the smallest datagrams in another framing. */
const large = new Slab(1024 * 1024, 640 * 1024)

/** Returns memory for a write of at most `size` bytes. Fill it from its start, then call `writeStaged`. */
export function stagingFor (size: number): Buffer {
  return (size <= SMALL_WRITE ? small : large).forWrite(size)
}

/**
 * Writes the first `length` bytes of staging memory. Bytes that still wait in the socket are not overwritten.
 * @returns the result of `socket.write`
 */
export function writeStaged (socket: Socket, staging: Buffer, length: number): boolean {
  const hasRoom = socket.write(staging.subarray(0, length))
  if (socket.writableLength > 0) {
    small.keep(staging, length)
    large.keep(staging, length)
  }
  return hasRoom
}
