import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { utf8Prefix } from '../../framing/utf8-prefix.ts'
import { MAX_CLOSE_REASON_LENGTH, NO_STATUS } from '../../framing/websocket-frames.ts'
import { printable } from '../../util/printable.ts'
import { LINGER_MS } from '../linger.ts'

/** How WebSockets (RFC 6455) that ws reads end, and what they may gather. */

/** A client's control frame: two bytes, and four of the mask. */
const CONTROL_HEADER_LENGTH = 6

/** The codes of Close frames (section 7.4.1, and IANA's registry) that the relay sends for what is in no table of reasons. */
export const closeCodes = { normal: 1000, unsupportedData: 1003, messageTooBig: 1009, internalError: 1011, tryAgainLater: 1013 } as const

/** What ws reports where no Close frame has come. As `NO_STATUS`, it may not be sent. */
const ABNORMAL_CLOSURE = 1006

/** How a WebSocket has ended. */
export interface WebSocketEnd {
  /** Undefined where the Close frame has none, or there is no such frame. */
  code: number | undefined
  /** Without control characters. */
  reason: string
  /** Whether a Close frame has come: else the connection broke. */
  isOrderly: boolean
}

export function onWebSocketEnd (socket: WebSocket, then: (end: WebSocketEnd) => void): void {
  socket.on('close', (code, reason) => then({
    code: code === NO_STATUS || code === ABNORMAL_CLOSURE ? undefined : code,
    reason: printable(reason.toString()),
    isOrderly: code !== ABNORMAL_CLOSURE
  }))
}

/** Sends a Close frame, and waits at most 1 s for the other side's. */
export function closeWebSocket (socket: WebSocket, code: number, reason: string): void {
  // What still comes in may break the rules of RFC 6455; met by no listener, that would end the process.
  socket.on('error', () => {})
  socket.close(code, utf8Prefix(reason, MAX_CLOSE_REASON_LENGTH))
  // The other side's is not seen by who does not read.
  socket.resume()
  const timer = setTimeout(() => socket.terminate(), LINGER_MS)
  socket.once('close', () => clearTimeout(timer))
}

/**
 * Calls `onTooBig` when a message gathers that is far above `limit`: the app's own WebSocket server may allow any size.
 * @param tunnel what `socket` speaks on
 */
export function limitMessages (socket: WebSocket, tunnel: Duplex, limit: number, onTooBig: () => void): void {
  let gathered = 0
  // Before ws, which hands over the messages that end in this chunk; what is left of it is not counted.
  tunnel.prependListener('data', (chunk: Buffer) => {
    gathered += chunk.length
    if (gathered <= limit * 2) return
    gathered = 0
    onTooBig()
  })
  const discount = (payload: Buffer): void => { gathered = Math.max(0, gathered - CONTROL_HEADER_LENGTH - payload.length) }
  socket.on('message', () => { gathered = 0 })
  socket.on('ping', discount)
  socket.on('pong', discount)
}
