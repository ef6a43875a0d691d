import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'

/**
 * Copies what comes out of `from` into `to`, no faster than `to` takes it, and carries the end over.
 * @param onBytes called with the length of each chunk
 */
export function forward (from: Duplex, to: Duplex, onBytes: (length: number) => void): void {
  from.on('data', (chunk: Buffer) => {
    onBytes(chunk.length)
    if (!to.write(chunk)) from.pause()
  })
  to.on('drain', () => from.resume())
  from.on('end', () => to.end())
  if (to.writableNeedDrain) from.pause()
  else from.resume()
}

/** How long bytes wait for a client's first byte, in milliseconds. */
const HOLD_MS = 300

/**
 * Calls `then` when the first byte has come out of `tunnel`, or 300 ms have passed: a client of the HTTPUpgrade
 * transport may lose what arrives together with the 101.
 */
export function afterFirstByte (tunnel: Duplex, then: () => void): void {
  const release = (): void => {
    clearTimeout(timer)
    tunnel.off('data', release)
    tunnel.off('close', forget)
    then()
  }
  const forget = (): void => clearTimeout(timer)
  const timer = setTimeout(release, HOLD_MS)
  tunnel.on('data', release)
  tunnel.on('close', forget)
}

/** Breaks a tunnel so that the other side sees that it broke, and does not take it for the end of the stream. */
export function abort (tunnel: Duplex): void {
  // A RST can only be asked of TCP itself: a unix socket has no local address, and TLS tells by ending without
  // close_notify, to which not every client pays attention.
  const isTcp = tunnel instanceof Socket && !(tunnel instanceof TLSSocket) && tunnel.localAddress !== undefined
  if (!isTcp) tunnel.destroy()
  // While a FIN is being sent libuv refuses to reset, and Node would never close the socket then.
  else if (isEnding(tunnel)) tunnel.once('finish', () => tunnel.resetAndDestroy())
  else tunnel.resetAndDestroy()
}

/** Whether all is written and the end of the stream is on its way to the kernel. */
function isEnding ({ writableEnded, writableFinished, writableLength }: Duplex): boolean {
  return writableEnded && !writableFinished && writableLength === 0
}
