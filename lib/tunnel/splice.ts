import type { Tunnel } from './tunnel.ts'

/** The most chunks that may wait in a tunnel, however small they are: each costs memory besides its bytes. */
const MAX_CHUNKS = 16

/**
 * Copies the bytes and the end of `from` into `to`, with backpressure.
 * @param onBytes called with the length of each write
 */
export function forward (from: Tunnel, to: Tunnel, onBytes: (length: number) => void): void {
  const { maxWrite } = to
  /** Chunks written since `to` was last empty. */
  let chunks = 0
  /** The unwritten part of a chunk that is written in pieces. */
  let rest: Buffer | undefined
  const onTaken = (): void => {
    if (to.writableLength > 0 || to.isDestroyed) return
    if (rest === undefined) from.resume()
    else writePiece(rest)
  }
  const writePiece = (chunk: Buffer): void => {
    const piece = chunk.subarray(0, maxWrite)
    rest = chunk.length > maxWrite ? chunk.subarray(maxWrite) : undefined
    onBytes(piece.length)
    to.write(piece, onTaken)
  }
  from.onData((chunk) => {
    if (chunk.length > maxWrite) {
      from.hold()
      return writePiece(chunk)
    }
    onBytes(chunk.length)
    if (to.writableLength === 0) chunks = 0
    chunks++
    const hasRoom = to.pass(chunk, chunks === MAX_CHUNKS ? onTaken : undefined)
    if (to.writableLength === 0) {
      if (maxWrite === Infinity) from.shareReads()
    } else if (chunks === MAX_CHUNKS || !hasRoom) {
      from.hold()
    }
  })
  to.onDrain(onTaken)
  from.onEnd(() => to.end(from.farewell))
  if (to.writableNeedDrain) from.hold()
  else from.resume()
}

/** How long to wait for the client's first byte, in milliseconds. */
const HOLD_MS = 300

/**
 * Calls `then` when `tunnel` receives its first byte, or after 300 ms. Clients of the HTTPUpgrade transport may
 * lose bytes that arrive together with the 101.
 */
export function afterFirstByte (tunnel: Tunnel, then: () => void): void {
  const release = (): void => {
    clearTimeout(timer)
    tunnel.offData(release)
    if (!tunnel.isClosed) then()
  }
  const timer = setTimeout(release, HOLD_MS)
  tunnel.onData(release)
  tunnel.onClose(() => clearTimeout(timer))
}
