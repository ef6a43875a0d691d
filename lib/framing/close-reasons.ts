/**
 * Why a tunnel is closed after the handshake: the names, their codes in a `wg` closing frame and in the Close frame of a
 * WebSocket (RFC 6455, section 7.4), and what a client should do.
 */
export const closeReasons = {
  'protocol-error': { code: 1, webSocket: 1002, retry: false },
  unstamped: { code: 2, webSocket: 1002, retry: false },
  replaced: { code: 3, webSocket: 4003, retry: false },
  idle: { code: 4, webSocket: 4004, retry: true },
  'write-deadline': { code: 5, webSocket: 4005, retry: true },
  disconnected: { code: 6, webSocket: 4006, retry: false },
  shutdown: { code: 7, webSocket: 1001, retry: true },
  'target-failed': { code: 8, webSocket: 1011, retry: true },
  limit: { code: 9, webSocket: 1013, retry: true }
} as const

/** A reason one side gives the other for closing a tunnel. */
export type CloseReason = keyof typeof closeReasons

const byCode = new Map<number, CloseReason>(
  Object.entries(closeReasons).map(([name, { code }]) => [code, name as CloseReason]))

/** The name of a closing frame's code, or undefined for a code this version does not know. */
export function closeReasonOf (code: number): CloseReason | undefined {
  return byCode.get(code)
}
