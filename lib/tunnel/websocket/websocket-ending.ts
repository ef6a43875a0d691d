import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { utf8Prefix } from '../../framing/utf8-prefix.ts'
import { MAX_CLOSE_REASON_LENGTH, NO_STATUS } from '../../framing/websocket-frames.ts'
import { printable } from '../../util/printable.ts'
import { LINGER_MS } from '../linger.ts'
import type { Farewell } from '../tunnel.ts'

/** Closing WebSockets (RFC 6455) that ws reads, and limiting the messages that ws buffers. */

/** The header of a client's control frame: two bytes, and four bytes of mask. */
const CONTROL_HEADER_LENGTH = 6

/** Close codes (RFC 6455, section 7.4.1, and the IANA registry) that the relay sends besides those of `close-reasons.ts`. */
export const closeCodes = { normal: 1000, unsupportedData: 1003, messageTooBig: 1009, internalError: 1011, tryAgainLater: 1013 } as const

/** What ws reports if no Close frame came. Like `NO_STATUS`, it may not be sent. */
const ABNORMAL_CLOSURE = 1006

/** The end of a WebSocket. */
export interface WebSocketEnd extends Farewell {
  /** True if a Close frame came, false if the connection broke. */
  isOrderly: boolean
}

export function onWebSocketEnd (socket: WebSocket, then: (end: WebSocketEnd) => void): void {
  socket.on('close', (code, reason) => then({
    code: code === NO_STATUS || code === ABNORMAL_CLOSURE ? undefined : code,
    reason: printable(reason.toString()),
    isOrderly: code !== ABNORMAL_CLOSURE
  }))
}

/** Sends a Close frame, and waits at most 1 s for the one of the other side. */
export function closeWebSocket (socket: WebSocket, code: number, reason: string): void {
  // Later frames may be invalid. Without a listener, the `error` event would end the process.
  socket.on('error', () => {})
  socket.close(code, utf8Prefix(reason, MAX_CLOSE_REASON_LENGTH))
  // A paused WebSocket would never see the other side's Close frame.
  socket.resume()
  const timer = setTimeout(() => socket.terminate(), LINGER_MS)
  socket.once('close', () => clearTimeout(timer))
}

/**
 * Calls `onTooBig` when ws buffers a message far above `limit` bytes. The app's own WebSocket server may allow any size.
 * @param tunnel the stream that carries `socket`
 */
export function limitMessages (socket: WebSocket, tunnel: Duplex, limit: number, onTooBig: () => void): void {
  let gathered = 0
  // Before ws, whose `message` events for this chunk reset the count. The rest of the chunk is not counted.
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
