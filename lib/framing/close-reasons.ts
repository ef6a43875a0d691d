/** Why a tunnel is closed after the handshake: the names, their codes in a `wg` closing frame, and what a client should do. */
export const closeReasons = {
  'protocol-error': { code: 1, retry: false },
  unstamped: { code: 2, retry: false },
  replaced: { code: 3, retry: false },
  idle: { code: 4, retry: true },
  'write-deadline': { code: 5, retry: true },
  disconnected: { code: 6, retry: false },
  shutdown: { code: 7, retry: true },
  'target-failed': { code: 8, retry: true },
  limit: { code: 9, retry: true }
} as const

/** A reason one side gives the other for closing a tunnel. */
export type CloseReason = keyof typeof closeReasons

const byCode = new Map<number, CloseReason>(
  Object.entries(closeReasons).map(([name, { code }]) => [code, name as CloseReason]))

/** The name of a closing frame's code, or undefined for a code this version does not know. */
export function closeReasonOf (code: number): CloseReason | undefined {
  return byCode.get(code)
}
