import {
  HANDSHAKE_INITIATION, HANDSHAKE_RESPONSE, COOKIE_REPLY, TRANSPORT_DATA, OTHER,
  INITIATION_SIZE, RESPONSE_SIZE, COOKIE_REPLY_SIZE, TRANSPORT_MIN_SIZE, MAX_DATAGRAM_SIZE, classify
} from './wireguard.ts'
import type { DatagramSink, DecoderOptions, Framing } from './framing.ts'
import { printable } from '../util/printable.ts'
import { StreamDecoder } from './stream-decoder.ts'
import { utf8Prefix } from './utf8-prefix.ts'

/**
 * The framing `wg` sends WireGuard messages without a prefix: the type of a message determines its size, and
 * transport data carries its length in the three reserved bytes. Any other datagram is escaped: `00` and a
 * 24-bit length precede it. A frame whose first byte has the top bit set is a control frame.
 */

const HEADER_LENGTH = 4
const ESCAPE = 0
const CONTROL = 0x80

/** Control frame types. */
export const PING = 0x80
export const PONG = 0x81
export const DRAIN = 0x82
export const CLOSING = 0x83
/** Decoders from before this type skip it, like any unknown control frame. */
export const NOTICE = 0x84

const PING_LENGTH = 8
const DRAIN_LENGTH = 4
const CLOSING_MAX_LENGTH = 258
const CONTROL_MAX_LENGTH = 1024
const CODE_LENGTH = 2
const NOTICE_TEXT_MAX_LENGTH = 512

class WgDecoder extends StreamDecoder {
  readonly #sink: DatagramSink
  readonly #maxPacketSize: number

  constructor (sink: DatagramSink, { maxPacketSize }: DecoderOptions) {
    super(HEADER_LENGTH)
    this.#sink = sink
    this.#maxPacketSize = maxPacketSize
  }

  protected override measure (buffer: Buffer, position: number): number {
    const type = buffer[position]!
    const length = (buffer[position + 1]! << 16) | (buffer[position + 2]! << 8) | buffer[position + 3]!
    if (type === TRANSPORT_DATA) {
      if (length < TRANSPORT_MIN_SIZE || length > MAX_DATAGRAM_SIZE) {
        if (length === 0) return this.#refuse('unstamped', 'transport data without its length in the reserved bytes')
        return this.#refuse('protocol-error', `transport data of ${length} bytes`)
      }
      return this.#allow(length, length)
    }
    if (type === ESCAPE) {
      if (length < 1 || length > MAX_DATAGRAM_SIZE) {
        return this.#refuse('protocol-error', `an escaped datagram of ${length} bytes`)
      }
      return this.#allow(length, HEADER_LENGTH + length)
    }
    if (type >= CONTROL) return this.#measureControl(type, length)
    if (length === 0) {
      if (type === HANDSHAKE_INITIATION) return this.#allow(INITIATION_SIZE, INITIATION_SIZE)
      if (type === HANDSHAKE_RESPONSE) return this.#allow(RESPONSE_SIZE, RESPONSE_SIZE)
      if (type === COOKIE_REPLY) return this.#allow(COOKIE_REPLY_SIZE, COOKIE_REPLY_SIZE)
    }
    return this.#refuse('protocol-error', `an unknown frame, ${buffer.toString('hex', position, position + HEADER_LENGTH)}`)
  }

  protected override take (buffer: Buffer, position: number, end: number): void {
    const type = buffer[position]!
    if (type >= CONTROL) this.#sink.control?.(type, buffer, position + HEADER_LENGTH, end)
    else if (type === ESCAPE) this.#sink.datagram(buffer, position, position + HEADER_LENGTH, end, false)
    else this.#sink.datagram(buffer, position, position, end, type === TRANSPORT_DATA)
  }

  #measureControl (type: number, length: number): number {
    const allowed =
      type === PING || type === PONG
        ? length === PING_LENGTH
        : type === DRAIN
          ? length === DRAIN_LENGTH
          : type === CLOSING
            ? length >= CODE_LENGTH && length <= CLOSING_MAX_LENGTH
            : length <= CONTROL_MAX_LENGTH
    if (!allowed) return this.#refuse('protocol-error', `control frame 0x${type.toString(16)} of ${length} bytes`)
    return HEADER_LENGTH + length
  }

  #allow (size: number, frameLength: number): number {
    if (size <= this.#maxPacketSize) return frameLength
    this.#sink.tooLarge()
    return -frameLength
  }

  #refuse (reason: 'protocol-error' | 'unstamped', text: string): 0 {
    this.fault = { reason, text }
    return 0
  }
}

function controlFrame (type: number, length: number): Buffer {
  const frame = Buffer.alloc(HEADER_LENGTH + length)
  frame[0] = type
  frame.writeUIntBE(length, 1, 3)
  return frame
}

let pings = 0

export const wg: Framing = {
  name: 'wg',
  isKeepaliveAnswered: true,
  maxOverhead: HEADER_LENGTH,

  createDecoder (sink, options) {
    return new WgDecoder(sink, options)
  },

  encode (target, offset, source, start, end, stamped) {
    const type = stamped ? TRANSPORT_DATA : classify(source, start, end)
    if (type === OTHER) {
      target[offset] = ESCAPE
      target.writeUIntBE(end - start, offset + 1, 3)
      return offset + HEADER_LENGTH + source.copy(target, offset + HEADER_LENGTH, start, end)
    }
    source.copy(target, offset, start, end)
    if (type === TRANSPORT_DATA && !stamped) target.writeUIntBE(end - start, offset + 1, 3)
    return offset + end - start
  },

  keepalive () {
    const frame = controlFrame(PING, PING_LENGTH)
    frame.writeUIntBE(++pings, HEADER_LENGTH + 2, 6)
    return frame
  },

  closing (code, text) {
    return codedFrame(CLOSING, code, text, CLOSING_MAX_LENGTH - CODE_LENGTH)
  },

  drain (afterMs) {
    const frame = controlFrame(DRAIN, DRAIN_LENGTH)
    frame.writeUInt32BE(Math.min(afterMs, 0xffffffff), HEADER_LENGTH)
    return frame
  },

  notice (code, text) {
    return codedFrame(NOTICE, code, text, NOTICE_TEXT_MAX_LENGTH)
  }
}

function codedFrame (type: number, code: number, text: string, textLimit: number): Buffer {
  const bytes = utf8Prefix(text, textLimit)
  const frame = controlFrame(type, CODE_LENGTH + bytes.length)
  frame.writeUInt16BE(code, HEADER_LENGTH)
  bytes.copy(frame, HEADER_LENGTH + CODE_LENGTH)
  return frame
}

/** Builds the reply to the ping whose payload is `chunk[start..end)`. */
export function pong (chunk: Buffer, start: number, end: number): Buffer {
  const frame = controlFrame(PONG, PING_LENGTH)
  chunk.copy(frame, HEADER_LENGTH, start, end)
  return frame
}

/** Reads the payload of a closing frame, and removes control characters from the text. */
export function readClosing (chunk: Buffer, start: number, end: number): { code: number, text: string } {
  return { code: chunk.readUInt16BE(start), text: printable(chunk.toString('utf8', start + CODE_LENGTH, end)) }
}

/**
 * Reads the payload of a notice frame. The text is cut after 512 bytes and has no control characters, because
 * terminals show it.
 * @returns undefined if the frame is too short to hold a code
 */
export function readNotice (chunk: Buffer, start: number, end: number): { code: number, text: string } | undefined {
  if (end - start < CODE_LENGTH) return undefined
  const textAt = start + CODE_LENGTH
  const text = chunk.toString('utf8', textAt, Math.min(end, textAt + NOTICE_TEXT_MAX_LENGTH))
  return { code: chunk.readUInt16BE(start), text: printable(text, NOTICE_TEXT_MAX_LENGTH) }
}

/** Reads the payload of a drain frame: the milliseconds to wait before reconnecting. */
export function readDrain (chunk: Buffer, start: number): number {
  return chunk.readUInt32BE(start)
}
