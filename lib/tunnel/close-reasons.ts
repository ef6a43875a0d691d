/**
 * Why a tunnel ends. One entry for each reason: the name, its code in a `wg` closing frame, in the Close frame of a
 * WebSocket (RFC 6455, section 7.4) and in RST_STREAM (RFC 9113, section 7), and whether a client should come back.
 *
 * Its words for people stand where they are shown: `endWords` in lib/admin/page/words.js, which a test holds complete, and
 * `endWords` in lib/cli/report.ts, which the compiler does. What a sidecar does then is in lib/client/sidecar/retry-kind.ts.
 */

/** RFC 9113, section 7. RFC 8441, section 5, has CANCEL for what would be a RST. */
const CANCEL = 0x8
const CONNECT_ERROR = 0xa
const ENHANCE_YOUR_CALM = 0xb

/** What one side tells the other. */
export const closeReasons = {
  'protocol-error': { code: 1, webSocket: 1002, http2: CANCEL, retry: false },
  unstamped: { code: 2, webSocket: 1002, http2: CANCEL, retry: false },
  replaced: { code: 3, webSocket: 4003, http2: CANCEL, retry: false },
  idle: { code: 4, webSocket: 4004, http2: CANCEL, retry: true },
  'write-deadline': { code: 5, webSocket: 4005, http2: CANCEL, retry: true },
  disconnected: { code: 6, webSocket: 4006, http2: CANCEL, retry: false },
  shutdown: { code: 7, webSocket: 1001, http2: CANCEL, retry: true },
  'target-failed': { code: 8, webSocket: 1011, http2: CONNECT_ERROR, retry: true },
  limit: { code: 9, webSocket: 1013, http2: ENHANCE_YOUR_CALM, retry: true }
} as const

/** What the relay sees, or decides about a stream channel: `wg` has no code for these. */
const otherReasons = {
  /** The other side ended its stream. */
  ended: { webSocket: 1000, http2: CANCEL },
  /** The connection broke. */
  lost: { webSocket: 1011, http2: CANCEL },
  /** No second tunnel came to a stream channel in time. */
  'pair-timeout': { webSocket: 1013, http2: CANCEL },
  /** The other tunnel of a stream channel broke. */
  'partner-lost': { webSocket: 1011, http2: CONNECT_ERROR }
} as const

/** A reason one side gives the other for closing a tunnel. */
export type CloseReason = keyof typeof closeReasons

/** Why a tunnel has ended: what the relay told the other side, or what it saw. */
export type DetachReason = CloseReason | keyof typeof otherReasons

const allReasons = { ...closeReasons, ...otherReasons }

export const detachReasons = Object.keys(allReasons) as DetachReason[]

/** The code of a `wg` closing frame; undefined for a reason that is not told. */
export function closingCodeOf (reason: DetachReason): number | undefined {
  return (allReasons[reason] as { code?: number }).code
}

/** The code of a WebSocket's Close frame. */
export function webSocketCodeOf (reason: DetachReason): number {
  return allReasons[reason].webSocket
}

/** The error code of RST_STREAM. */
export function resetCodeOf (reason: DetachReason): number {
  return allReasons[reason].http2
}

const byCode = new Map<number, CloseReason>(
  Object.entries(closeReasons).map(([name, { code }]) => [code, name as CloseReason]))

/** The name of a closing frame's code, or undefined for a code this version does not know. */
export function closeReasonOf (code: number): CloseReason | undefined {
  return byCode.get(code)
}
