import type { Socket } from 'node:net'

const SIZE = 1024 * 1024
/** What one chunk comes to at most, but for the smallest of datagrams in another framing. */
const USUAL_WRITE = 640 * 1024

/**
 * Memory for writes to plain sockets. The system mostly takes all of a write at once; then the same memory serves the next
 * one, of whichever socket.
 */
let slab = Buffer.alloc(0)

/** Memory for a write of at most `size` bytes, which begins at its start; `writeStaged` is next. */
export function stagingFor (size: number): Buffer {
  // Not before most of it waits in sockets: else little could keep a slab for itself.
  if (slab.length < USUAL_WRITE) slab = Buffer.allocUnsafeSlow(SIZE)
  return size <= slab.length ? slab : Buffer.allocUnsafeSlow(size)
}

/**
 * Writes the first `length` bytes of staging memory. What the socket has not passed on yet is not written over.
 * @returns what `socket.write` does
 */
export function writeStaged (socket: Socket, staging: Buffer, length: number): boolean {
  const hasRoom = socket.write(staging.subarray(0, length))
  if (socket.writableLength > 0 && staging === slab) slab = slab.subarray(length)
  return hasRoom
}
