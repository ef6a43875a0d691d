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

/** Breaks a tunnel so that the other side sees that it broke, and does not take it for the end of the stream. */
export function abort (tunnel: Duplex): void {
  // A RST can only be asked of TCP itself: a unix socket has no remote address, and TLS shows the same by ending
  // without close_notify.
  const isTcp = tunnel instanceof Socket && !(tunnel instanceof TLSSocket) && tunnel.remoteAddress !== undefined
  if (isTcp) tunnel.resetAndDestroy()
  else tunnel.destroy()
}
