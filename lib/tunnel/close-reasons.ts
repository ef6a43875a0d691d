/**
 * The reasons why a tunnel ends. Each has a name and its codes: in a `wg` closing frame, in a WebSocket's Close frame
 * (RFC 6455, section 7.4) and in RST_STREAM (RFC 9113, section 7). `retry` says whether a client should reconnect.
 *
 * The words for people: `endWords` in lib/admin/page/words.js (checked by a test) and in lib/cli/report.ts (checked by the
 * compiler). What a sidecar does after each: lib/client/sidecar/retry-kind.ts.
 */

/** RFC 9113, section 7. RFC 8441, section 5, maps a TCP RST to CANCEL. */
const CANCEL = 0x8
const CONNECT_ERROR = 0xa
const ENHANCE_YOUR_CALM = 0xb

/** The reasons that one side sends to the other. */
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

/** Reasons that the relay observes, or that exist in stream channels only. `wg` has no code for them. */
const otherReasons = {
  /** The other side ended its stream. */
  ended: { webSocket: 1000, http2: CANCEL },
  /** The connection broke. */
  lost: { webSocket: 1011, http2: CANCEL },
  /** No second tunnel joined a stream channel in time. */
  'pair-timeout': { webSocket: 1013, http2: CANCEL },
  /** The other tunnel of a stream channel broke. */
  'partner-lost': { webSocket: 1011, http2: CONNECT_ERROR }
} as const

/** A reason one side gives the other for closing a tunnel. */
export type CloseReason = keyof typeof closeReasons

/** Why a tunnel ended: the reason that the relay sent to the other side, or the one it observed. */
export type DetachReason = CloseReason | keyof typeof otherReasons

const allReasons = { ...closeReasons, ...otherReasons }

export const detachReasons = Object.keys(allReasons) as DetachReason[]

/** Returns the code for a `wg` closing frame, or undefined for a reason that is never sent. */
export function closingCodeOf (reason: DetachReason): number | undefined {
  return (allReasons[reason] as { code?: number }).code
}

/** Returns the code for a WebSocket's Close frame. */
export function webSocketCodeOf (reason: DetachReason): number {
  return allReasons[reason].webSocket
}

/** Returns the error code for RST_STREAM. */
export function resetCodeOf (reason: DetachReason): number {
  return allReasons[reason].http2
}

const byCode = new Map<number, CloseReason>(
  Object.entries(closeReasons).map(([name, { code }]) => [code, name as CloseReason]))

/** Returns the name for a closing frame's code, or undefined if this version does not know the code. */
export function closeReasonOf (code: number): CloseReason | undefined {
  return byCode.get(code)
}
