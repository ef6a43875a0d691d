import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isPlain, isReadInto, readInto } from '../../internals/plain-socket.ts'

/** Larger reads gain little. Smaller ones cost a third more for each datagram. */
const SIZE = 512 * 1024

/** The memory that all plain sockets read into, one after the other. Allocated for the first chunk. */
let shared: Buffer | undefined

/**
 * Makes a tunnel read into shared memory, if it is a plain socket with a single `data` listener. A chunk is then valid
 * during its `data` event only. Call it after a chunk, so that silent tunnels cost nothing.
 */
export function shareReads (tunnel: Duplex): void {
  if (!isPlain(tunnel)) return
  shared ??= Buffer.allocUnsafeSlow(SIZE)
  if (isReadInto(tunnel, shared) || tunnel.readableLength > 0 || tunnel.listenerCount('data') !== 1) return
  readInto(tunnel, shared, emitChunk)
}

/** True if these bytes lie in the shared memory, which the next chunk overwrites. */
export function isShared (bytes: Buffer): boolean {
  return bytes.buffer === shared?.buffer
}

function emitChunk (this: Socket, length: number): void {
  const chunk = shared!.subarray(0, length)
  // Other listeners do not know that the next chunk overwrites this one, so they get a copy.
  this.emit('data', this.listenerCount('data') === 1 ? chunk : Buffer.from(chunk))
}
