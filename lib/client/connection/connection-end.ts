import type { CloseReason } from '../../tunnel/close-reasons.ts'

/**
 * Why a connection ended: a reason that one side gave (see `CloseReason`), or
 * - `closed`: this side called `close()`
 * - `lost`: it ended without a reason, or with a network error; a ping was not answered; or the local address is gone
 * - `unknown`: the relay gave a reason that this version has no name for
 */
export type ConnectionEndReason = CloseReason | 'closed' | 'lost' | 'unknown'

/** How a connection ended. */
export interface ConnectionEnd {
  reason: ConnectionEndReason
  /** More about it, for people; without control characters, and possibly empty. */
  text: string
  /** Whether connecting again makes sense. */
  retry: boolean
  /** The code of the closing frame, or of a WebSocket's Close frame, if one side sent one. */
  code?: number
}
