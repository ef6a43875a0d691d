/** The frames of HTTP/2 (RFC 9113), and header blocks of HPACK (RFC 7541) that no table is needed for. */

/** The types (section 6). */
export const frameTypes = {
  DATA: 0, HEADERS: 1, RST_STREAM: 3, SETTINGS: 4, PING: 6, GOAWAY: 7, WINDOW_UPDATE: 8, CONTINUATION: 9
} as const

export const flags = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8 } as const

/** What a client sends first (section 3.4). */
export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')

const HEADER_LENGTH = 9

export interface Http2Frame {
  type: number
  flags: number
  stream: number
  payload: Buffer
}

/** Names and values in order, as they are to be sent. */
export type HeaderList = Array<[name: string, value: string]>

export function encodeFrame (type: number, withFlags: number, stream: number, payload: Uint8Array | string = ''): Buffer {
  const bytes = Buffer.from(payload as Uint8Array)
  const header = Buffer.alloc(HEADER_LENGTH)
  header.writeUIntBE(bytes.length, 0, 3)
  header[3] = type
  header[4] = withFlags
  header.writeUInt32BE(stream, 5)
  return Buffer.concat([header, bytes])
}

/** The frames that `bytes` begin with, and what is left of one that has not come as a whole. */
export function decodeFrames (bytes: Buffer): { frames: Http2Frame[], rest: Buffer } {
  const frames: Http2Frame[] = []
  let rest = bytes
  while (rest.length >= HEADER_LENGTH) {
    const end = HEADER_LENGTH + rest.readUIntBE(0, 3)
    if (rest.length < end) break
    frames.push({ type: rest[3]!, flags: rest[4]!, stream: rest.readUInt32BE(5), payload: Buffer.from(rest.subarray(HEADER_LENGTH, end)) })
    rest = rest.subarray(end)
  }
  return { frames, rest }
}

/** Each field as a literal without indexing (RFC 7541, section 6.2.2). */
export function hpack (headers: HeaderList): Buffer {
  return Buffer.concat(headers.flatMap(([name, value]) => [Buffer.from([0]), hpackString(name), hpackString(value)]))
}

/** A string whose length needs no more than 14 bits, not Huffman-coded (RFC 7541, section 5). */
function hpackString (text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  const rest = bytes.length - 127
  const length = rest < 0 ? [bytes.length] : rest < 128 ? [127, rest] : [127, (rest & 127) | 128, rest >> 7]
  return Buffer.concat([Buffer.from(length), bytes])
}

/** The headers of an extended CONNECT, in which those of `headers` replace others. */
export function connectHeaders (path: string, protocol = 'websocket', headers: Record<string, string> = {}): HeaderList {
  return Object.entries({
    ':method': 'CONNECT',
    ':protocol': protocol,
    ':scheme': 'http',
    ':path': path,
    ':authority': 'localhost',
    ...(protocol === 'websocket' ? { 'sec-websocket-version': '13' } : {}),
    ...headers
  })
}

export function uint32 (value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
