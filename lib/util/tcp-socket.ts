import type { Socket } from 'node:net'

const KEEPALIVE_MS = 60_000

/** Sets what a tunnel's TCP connection needs: nothing waits to be sent together, and a vanished other side is noticed. */
export function prepareTcp (socket: Socket): void {
  socket.setNoDelay(true)
  socket.setKeepAlive(true, KEEPALIVE_MS)
}

const LONGEST_ATTEMPT_MS = 5000

/**
 * How long one address of a name with several is tried before the next, in milliseconds; the last one has all that is left.
 * Node's own 250 ms give up each path with a longer round trip, and leave no time for a SYN that was lost, which is sent
 * again after a second. A quarter of the deadline lets four addresses have their turn, and Node alternates IPv6 and IPv4.
 */
export function attemptTimeout (deadline: number): number {
  return Math.max(10, Math.min(LONGEST_ATTEMPT_MS, Math.ceil(deadline / 4)))
}
