import { closeFrame, closePayload, fragments, frame, message, opcodes } from './websocket-frames.ts'

/** What a client must not send (RFC 6455, section 5), and the code of the Close frame that it gets. */
export interface FramingError {
  sent: Buffer
  /** Section 7.4.1. */
  code: number
}

const PROTOCOL_ERROR = 1002
const UNSUPPORTED_DATA = 1003
const INVALID_PAYLOAD = 1007
const POLICY_VIOLATION = 1008
const MESSAGE_TOO_BIG = 1009

const LARGEST = 65535

/** A header that announces more than will ever come. */
function announcing (length: bigint): Buffer {
  const head = Buffer.alloc(14)
  head.set([0x80 | opcodes.BINARY, 0x80 | 127])
  head.writeBigUInt64BE(length, 2)
  return head
}

const protocolErrors: Record<string, Buffer> = {
  'a message without a mask': message('datagram', { mask: false }),
  'a ping without a mask': frame(opcodes.PING, 'ping', { mask: false }),
  'an empty message without a mask': message('', { mask: false }),
  ...Object.fromEntries([4, 2, 1].map((reserved, index) => [`the reserved bit ${index + 1}`, message('datagram', { reserved })])),
  'a reserved bit in a control frame': frame(opcodes.PING, '', { reserved: 4 }),
  'a reserved bit in a continuation': Buffer.concat([
    frame(opcodes.BINARY, 'data', { fin: false }), frame(opcodes.CONTINUATION, 'gram', { reserved: 4 })
  ]),
  ...Object.fromEntries([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => [`the reserved opcode ${opcode}`, frame(opcode)])),
  'a ping in fragments': frame(opcodes.PING, 'ping', { fin: false }),
  'a pong in fragments': frame(opcodes.PONG, 'pong', { fin: false }),
  'a Close frame in fragments': frame(opcodes.CLOSE, closePayload(1000), { fin: false }),
  'a ping of 126 bytes': frame(opcodes.PING, Buffer.alloc(126)),
  'a pong of 65536 bytes': frame(opcodes.PONG, Buffer.alloc(65536)),
  'a Close frame of 126 bytes': frame(opcodes.CLOSE, closePayload(1000, Buffer.alloc(124, 'x'))),
  'a continuation of nothing': frame(opcodes.CONTINUATION, 'gram'),
  'a continuation of nothing that is to go on': frame(opcodes.CONTINUATION, 'gram', { fin: false }),
  'a continuation behind a whole message': Buffer.concat([message(''), frame(opcodes.CONTINUATION, 'gram')]),
  'a message within a message': Buffer.concat([frame(opcodes.BINARY, 'data', { fin: false }), message('another')]),
  'a text within a message': Buffer.concat([frame(opcodes.BINARY, 'data', { fin: false }), frame(opcodes.TEXT, 'another')]),
  'a Close frame of 1 byte': frame(opcodes.CLOSE, 'x'),
  ...Object.fromEntries([0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535].map((code) => [`the close code ${code}`, closeFrame(code)]))
}

const others: Record<string, FramingError> = {
  'a reason that is not UTF-8': { sent: frame(opcodes.CLOSE, closePayload(1000, Buffer.from([0xc3, 0x28]))), code: INVALID_PAYLOAD },
  'a reason with half a surrogate pair': { sent: frame(opcodes.CLOSE, closePayload(1000, Buffer.from([0xed, 0xa0, 0x80]))), code: INVALID_PAYLOAD },
  'a text': { sent: frame(opcodes.TEXT, 'datagram'), code: UNSUPPORTED_DATA },
  'an empty text': { sent: frame(opcodes.TEXT), code: UNSUPPORTED_DATA },
  'a text in fragments': {
    sent: Buffer.concat([frame(opcodes.TEXT, 'data', { fin: false }), frame(opcodes.CONTINUATION, 'gram')]), code: UNSUPPORTED_DATA
  },
  'a text that is not UTF-8': { sent: frame(opcodes.TEXT, Buffer.from([0xff])), code: INVALID_PAYLOAD },
  'a message of 65536 bytes': { sent: message(Buffer.alloc(LARGEST + 1)), code: MESSAGE_TOO_BIG },
  'a message that is too big, in fragments': {
    sent: Buffer.concat(fragments([Buffer.alloc(LARGEST), 'x'])), code: MESSAGE_TOO_BIG
  }
}

/** What is refused by the relay's own WebSocket server, and also by that of an app with the same options. */
export const framingErrors: Record<string, FramingError> = {
  ...Object.fromEntries(Object.entries(protocolErrors).map(([title, sent]) => [title, { sent, code: PROTOCOL_ERROR }])),
  ...others
}

/** What depends on the limits that a WebSocket server was given. */
export const limitErrors: Record<string, FramingError> = {
  'a message that announces 2^40 bytes': { sent: announcing(1n << 40n), code: MESSAGE_TOO_BIG },
  // A length has 63 bits; it is too big in any case.
  'a message that announces 2^63 bytes': { sent: announcing(1n << 63n), code: MESSAGE_TOO_BIG },
  'a message in 1025 fragments': { sent: Buffer.concat(fragments(Array(1025).fill(''))), code: POLICY_VIOLATION }
}

/** Codes that a client may close with. */
export const validCloseCodes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
