import { randomFillSync } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { WebSocket } from 'ws'
import { frameReceiver, MESSAGE_PIECES, webSocketOn, type WebSocketClass } from '../../internals/ws-internals.ts'
import { closeReasonOf, closeReasons, type CloseReason } from '../../tunnel/close-reasons.ts'
import type { Decoder, DecoderOptions } from '../../framing/framing.ts'
import {
  BINARY_FRAME, CLOSE_FRAME, LENGTH_IN_16_BITS, MAX_CLOSE_REASON_LENGTH, NO_STATUS, PING_FRAME, PONG_FRAME
} from '../../framing/websocket-frames.ts'
import { closeCodes } from '../../tunnel/websocket/websocket-ending.ts'
import { MAX_STREAM_MESSAGE, WebSocketStream } from '../../tunnel/websocket/websocket-stream.ts'
import { utf8Prefix } from '../../framing/utf8-prefix.ts'
import { printable } from '../../util/printable.ts'
import { MAX_DATAGRAM_SIZE } from '../../framing/wireguard.ts'
import type { ConnectionEnd } from './connection-end.ts'
import type { ConnectionFraming, ConnectionSink } from './connection-framing.ts'

/**
 * The client's side of a WebSocket (RFC 6455) whose handshake is done. ws reads incoming frames. Outgoing datagrams are framed
 * here, so that those of one turn of the event loop leave in one write.
 */

const MASKED = 0x80
const MASK_LENGTH = 4
const MAX_HEADER_LENGTH = 4 + MASK_LENGTH

/** How long to wait for the other side's Close frame at the end of a stream, in milliseconds. */
const CLOSE_TIMEOUT_MS = 60_000

// Masks must not be predictable (section 10.3). They are taken from the system 2048 at a time.
const masks = Buffer.alloc(8192)
let nextMask = masks.length

export const webSocketFraming: ConnectionFraming = {
  name: 'websocket',
  isKeepaliveAnswered: true,
  maxOverhead: MAX_HEADER_LENGTH,

  encode (target, offset, source, start, end) {
    const length = end - start
    target[offset] = BINARY_FRAME
    let position = offset + 2
    if (length < LENGTH_IN_16_BITS) {
      target[offset + 1] = MASKED | length
    } else {
      target[offset + 1] = MASKED | LENGTH_IN_16_BITS
      position = target.writeUInt16BE(length, position)
    }
    return writeMasked(target, position, source, start, end)
  },

  createDecoder: (sink, options) => new WebSocketDecoder(sink, options),

  keepalive: () => maskedControlFrame(PING_FRAME, Buffer.alloc(0)),

  closing (code, text) {
    const reason = closeReasonOf(code)
    return closeFrame(reason === undefined ? closeCodes.internalError : closeReasons[reason].webSocket, text)
  },

  ending: () => closeFrame(closeCodes.normal, '')
}

class WebSocketDecoder implements Decoder {
  readonly #receiver = frameReceiver({ maxPayload: MAX_DATAGRAM_SIZE })
  #fault: ReturnType<Decoder['push']>

  constructor (sink: ConnectionSink, { maxPacketSize }: DecoderOptions) {
    this.#receiver
      .on('message', (message: Buffer, isBinary: boolean) => {
        if (!isBinary) this.#fault ??= { reason: 'protocol-error', text: 'a text message' }
        else if (message.length > maxPacketSize) sink.tooLarge()
        else if (message.length > 0 && this.#fault === undefined) sink.datagram(message, 0, 0, message.length, false)
      })
      .on('ping', (payload: Buffer) => sink.owePong(maskedControlFrame(PONG_FRAME, payload)))
      .on('pong', () => sink.ponged())
      .on('conclude', (code: number, reason: Buffer) => {
        const answer = code === NO_STATUS ? maskedControlFrame(CLOSE_FRAME, Buffer.alloc(0)) : closeFrame(code, '')
        sink.ended(endOf(code, printable(reason.toString())), answer)
      })
      .on('error', () => {})
  }

  push (chunk: Buffer): ReturnType<Decoder['push']> {
    this.#receiver.write(chunk)
    // Node sets `errored` at once, and emits the error later.
    const { errored } = this.#receiver
    if (errored !== null) this.#fault ??= { reason: 'protocol-error', text: errored.message }
    return this.#fault
  }

  end (): ReturnType<Decoder['end']> {
    return { reason: 'protocol-error', text: 'the connection was closed without a Close frame' }
  }
}

/** The reason for each code of a Close frame; docs/websockets.md lists the relay's codes. */
const reasonsByCode = new Map<number, CloseReason>([
  // `unstamped` has the same code as `protocol-error`, and no meaning for WebSockets.
  ...Object.entries(closeReasons).map(([name, { webSocket }]) => [webSocket, name as CloseReason] as const),
  [1002, 'protocol-error'], [1003, 'protocol-error'], [1007, 'protocol-error'], [1009, 'protocol-error']
])

function endOf (code: number, text: string): ConnectionEnd {
  if (code === NO_STATUS || code === closeCodes.normal) {
    return { reason: 'lost', text: text || 'the WebSocket was closed without a reason', retry: true, ...(code === NO_STATUS ? {} : { code }) }
  }
  const reason = reasonsByCode.get(code)
  if (reason === undefined) return { reason: 'unknown', text: text || `the WebSocket was closed with code ${code}`, retry: true, code }
  return { reason, text, retry: closeReasons[reason].retry, code }
}

/** Masks a payload, as a client must (section 5.3); returns the offset behind it. */
function writeMasked (target: Buffer, offset: number, source: Buffer, start: number, end: number): number {
  if (nextMask === masks.length) {
    randomFillSync(masks)
    nextMask = 0
  }
  const m0 = target[offset] = masks[nextMask++]!
  const m1 = target[offset + 1] = masks[nextMask++]!
  const m2 = target[offset + 2] = masks[nextMask++]!
  const m3 = target[offset + 3] = masks[nextMask++]!
  let position = offset + MASK_LENGTH
  let from = start
  for (const whole = end - 3; from < whole; from += 4, position += 4) {
    target[position] = source[from]! ^ m0
    target[position + 1] = source[from + 1]! ^ m1
    target[position + 2] = source[from + 2]! ^ m2
    target[position + 3] = source[from + 3]! ^ m3
  }
  if (from < end) target[position++] = source[from++]! ^ m0
  if (from < end) target[position++] = source[from++]! ^ m1
  if (from < end) target[position++] = source[from]! ^ m2
  return position
}

function maskedControlFrame (opcode: number, payload: Buffer): Buffer {
  const frame = Buffer.alloc(2 + MASK_LENGTH + payload.length)
  frame[0] = opcode
  frame[1] = MASKED | payload.length
  writeMasked(frame, 2, payload, 0, payload.length)
  return frame
}

function closeFrame (code: number, reason: string): Buffer {
  const bytes = utf8Prefix(reason, MAX_CLOSE_REASON_LENGTH)
  const payload = Buffer.alloc(2 + bytes.length)
  payload.writeUInt16BE(code)
  bytes.copy(payload, 2)
  return maskedControlFrame(CLOSE_FRAME, payload)
}

/** Makes a stream of bytes of a WebSocket. Its errors do not end the process. */
export function webSocketStream (tunnel: Duplex): Duplex {
  const options = { autoPong: true, maxPendingAutoPongs: 100, closeTimeout: CLOSE_TIMEOUT_MS, maxPayload: MAX_STREAM_MESSAGE, ...MESSAGE_PIECES }
  const webSocket = webSocketOn(tunnel, WebSocket as unknown as WebSocketClass, options, { isServer: false })
  const stream = new WebSocketStream(webSocket, tunnel)
  stream.on('error', () => {})
  return stream
}
