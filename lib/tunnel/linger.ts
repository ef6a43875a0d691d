import type { Duplex } from 'node:stream'

const LINGER_BYTES = 65536
/** How long the other side has to read the last bytes and to reply, in milliseconds. */
export const LINGER_MS = 1000

/**
 * Ends a tunnel, and lets the other side read the last bytes. Incoming bytes are discarded. After 64 KiB or 1 s, the
 * tunnel is destroyed. Closing a socket with unread bytes would send a RST, which can discard bytes that the other
 * side has not read yet.
 * @param finalBytes written before the end
 */
export function endAndLinger (tunnel: Duplex, finalBytes?: Buffer): void {
  if (tunnel.destroyed) return
  const timer = setTimeout(() => tunnel.destroy(), LINGER_MS)
  let discarded = 0
  tunnel.on('close', () => clearTimeout(timer))
  tunnel.on('data', (chunk: Buffer) => {
    discarded += chunk.length
    if (discarded > LINGER_BYTES) tunnel.destroy()
  })
  tunnel.on('end', () => {
    if (tunnel.writableFinished) tunnel.destroy()
    else tunnel.on('finish', () => tunnel.destroy())
  })
  if (finalBytes !== undefined) tunnel.end(finalBytes)
  else tunnel.end()
  tunnel.resume()
}
