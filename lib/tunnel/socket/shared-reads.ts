import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { isPlain, isReadInto, readInto } from '../../internals/plain-socket.ts'

/** Of more than this, larger reads gain little; of less, they cost a third more for each datagram. */
const SIZE = 512 * 1024

/** What tunnels are read into, one after the other. Taken when the first one has something to say. */
let shared: Buffer | undefined

/**
 * Lets a tunnel's chunks come in memory that it shares with others, if it is a plain socket and nobody else listens: then a
 * chunk is valid during its `data` event only. Called after a chunk, so that a tunnel that says nothing costs nothing.
 */
export function shareReads (tunnel: Duplex): void {
  if (!isPlain(tunnel)) return
  shared ??= Buffer.allocUnsafeSlow(SIZE)
  if (isReadInto(tunnel, shared) || tunnel.readableLength > 0 || tunnel.listenerCount('data') !== 1) return
  readInto(tunnel, shared, emitChunk)
}

/** Whether these bytes lie in memory that the next chunk is written to. */
export function isShared (bytes: Buffer): boolean {
  return bytes.buffer === shared?.buffer
}

function emitChunk (this: Socket, length: number): void {
  const chunk = shared!.subarray(0, length)
  // Others who listen do not know that it is not theirs to keep.
  this.emit('data', this.listenerCount('data') === 1 ? chunk : Buffer.from(chunk))
}
