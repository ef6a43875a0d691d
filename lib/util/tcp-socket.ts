import type { Socket } from 'node:net'

const KEEPALIVE_MS = 60_000

/** Configures a tunnel's TCP connection: TCP_NODELAY, and TCP keepalives after 60 s to detect a vanished peer. */
export function prepareTcp (socket: Socket): void {
  socket.setNoDelay(true)
  socket.setKeepAlive(true, KEEPALIVE_MS)
}

const LONGEST_ATTEMPT_MS = 5000

/**
 * Returns how long to try one of a name's addresses before the next: a quarter of the deadline, from 10 ms to 5 s. The last
 * address gets the remaining time. Node's default of 250 ms fails on paths with a longer round trip, and allows no time to
 * resend a lost SYN, which takes a second. A quarter leaves time for four addresses. Node alternates IPv6 and IPv4.
 * @param deadline in milliseconds
 * @returns milliseconds
 */
export function attemptTimeout (deadline: number): number {
  return Math.max(10, Math.min(LONGEST_ATTEMPT_MS, Math.ceil(deadline / 4)))
}
