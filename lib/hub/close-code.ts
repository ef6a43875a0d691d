import { closeReasons, type CloseReason } from '../framing/close-reasons.ts'
import { closeCodes } from '../framing/websocket.ts'
import type { DetachReason } from './peer.ts'

/** With which code the Close frame of a WebSocket tells a reason. */
export function closeCodeOf (reason: DetachReason): number {
  if (reason === 'pair-timeout') return closeCodes.tryAgainLater
  if (reason === 'ended') return closeCodes.normal
  return Object.hasOwn(closeReasons, reason) ? closeReasons[reason as CloseReason].webSocket : closeCodes.internalError
}
