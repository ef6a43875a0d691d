import { randomBytes } from 'node:crypto'

/** Frames of RFC 6455 as a client sends them, right or wrong, and as it receives them (section 5.2). */

export const opcodes = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 } as const

export interface FrameOptions {
  fin?: boolean
  /** The three reserved bits as a number from 0 to 7. */
  reserved?: number
  /** Default: a random one; false for a frame without. */
  mask?: Buffer | false
  /** How many bytes follow the second one to tell the length; default: as many as needed. */
  lengthBytes?: 0 | 2 | 8
}

/** A client's frame. */
export function frame (opcode: number, payload: Uint8Array | string = '', { fin = true, reserved = 0, mask = randomBytes(4), lengthBytes }: FrameOptions = {}): Buffer {
  const bytes = Buffer.from(payload as Uint8Array)
  const { length } = bytes
  const extra = lengthBytes ?? (length < 126 ? 0 : length < 65536 ? 2 : 8)
  const head = Buffer.alloc(2 + extra)
  head[0] = (fin ? 0x80 : 0) | (reserved << 4) | opcode
  head[1] = (mask === false ? 0 : 0x80) | (extra === 0 ? length : extra === 2 ? 126 : 127)
  if (extra === 2) head.writeUInt16BE(length, 2)
  if (extra === 8) head.writeBigUInt64BE(BigInt(length), 2)
  if (mask === false) return Buffer.concat([head, bytes])
  return Buffer.concat([head, mask, bytes.map((byte, index) => byte ^ mask[index % 4]!)])
}

/** A message in one frame. */
export function message (payload: Uint8Array | string, options?: FrameOptions): Buffer {
  return frame(opcodes.BINARY, payload, options)
}

/** A message in as many frames as there are pieces. */
export function fragments (pieces: Array<Uint8Array | string>): Buffer[] {
  return pieces.map((piece, index) => frame(index === 0 ? opcodes.BINARY : opcodes.CONTINUATION, piece, { fin: index === pieces.length - 1 }))
}

export function closeFrame (code: number, reason = ''): Buffer {
  return frame(opcodes.CLOSE, closePayload(code, reason))
}

export function closePayload (code: number, reason: Uint8Array | string = ''): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(code)
  return Buffer.concat([bytes, Buffer.from(reason as Uint8Array)])
}

export interface WebSocketFrame {
  /** The byte with FIN, the reserved bits and the opcode. */
  first: number
  payload: Buffer
}

/** What bytes come out of: a connection, or a stream of one. */
export interface ByteSource {
  read: (length: number) => Promise<Buffer>
}

/** The server's next frame, which must not be masked, and whose length must be told in the shortest way. */
export async function readFrame (source: ByteSource): Promise<WebSocketFrame> {
  const head = await source.read(2)
  let length = head[1]!
  if ((length & 0x80) !== 0) throw new Error('the server has masked a frame')
  if (length === 126) {
    length = (await source.read(2)).readUInt16BE()
    if (length < 126) throw new Error('the length is not told in the shortest way')
  } else if (length === 127) {
    length = Number((await source.read(8)).readBigUInt64BE())
    if (length < 65536) throw new Error('the length is not told in the shortest way')
  }
  return { first: head[0]!, payload: await source.read(length) }
}

/** The next message, which must be binary and in one frame. */
export async function readMessage (source: ByteSource): Promise<Buffer> {
  const { first, payload } = await readFrame(source)
  if (first !== (0x80 | opcodes.BINARY)) throw new Error(`a frame 0x${first.toString(16)} in place of a message: ${payload.toString('latin1')}`)
  return payload
}

/** The next frame, which must be a Close frame. */
export async function readClose (source: ByteSource): Promise<{ code: number | undefined, reason: string }> {
  const { first, payload } = await readFrame(source)
  if (first !== (0x80 | opcodes.CLOSE)) throw new Error(`a frame 0x${first.toString(16)} in place of a Close frame: ${payload.toString('latin1')}`)
  return { code: payload.length === 0 ? undefined : payload.readUInt16BE(), reason: payload.toString('utf8', 2) }
}
