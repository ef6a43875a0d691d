import type { Tunnel } from './tunnel.ts'

/** So many chunks a tunnel may hold before it has taken the first of them, however small they are: each takes memory beside its bytes. */
const MAX_CHUNKS = 16

/**
 * Copies what comes out of `from` into `to`, no faster than `to` takes it, and carries the end over.
 * @param onBytes called with the length of what is written
 */
export function forward (from: Tunnel, to: Tunnel, onBytes: (length: number) => void): void {
  const { maxWrite } = to
  /** Since `to` had taken all. */
  let chunks = 0
  /** Of a chunk that is written in pieces. */
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

/** How long bytes wait for a client's first byte, in milliseconds. */
const HOLD_MS = 300

/**
 * Calls `then` when the first byte has come out of `tunnel`, or 300 ms have passed: a client of the HTTPUpgrade
 * transport may lose what arrives together with the 101.
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
