import type { Socket } from 'node:net'

const KEEPALIVE_MS = 60_000

/** Sets what a tunnel's TCP connection needs: nothing waits to be sent together, and a vanished other side is noticed. */
export function prepareTcp (socket: Socket): void {
  socket.setNoDelay(true)
  socket.setKeepAlive(true, KEEPALIVE_MS)
}
