import { connect, type AddressInfo, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { connectHeaders, decodeFrames, encodeFrame, flags, frameTypes, hpack, PREFACE, uint32, type HeaderList, type Http2Frame } from '../helpers/http2-frames.ts'
import { until } from '../helpers/tunnel.ts'

/** A client that writes HTTP/2 frame by frame (RFC 9113), for what no library would send, or only as it sees fit. */

export { connectHeaders, flags, frameTypes, type HeaderList }

/** The error codes of section 7, each at the place of its number. */
export const errorCodes = [
  'NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR', 'SETTINGS_TIMEOUT', 'STREAM_CLOSED', 'FRAME_SIZE_ERROR',
  'REFUSED_STREAM', 'CANCEL', 'COMPRESSION_ERROR', 'CONNECT_ERROR', 'ENHANCE_YOUR_CALM', 'INADEQUATE_SECURITY', 'HTTP_1_1_REQUIRED'
] as const

export const settingIds = { HEADER_TABLE_SIZE: 1, MAX_CONCURRENT_STREAMS: 3, INITIAL_WINDOW_SIZE: 4, MAX_FRAME_SIZE: 5, ENABLE_CONNECT_PROTOCOL: 8 } as const

const DEFAULT_WINDOW = 65535
const MAX_FRAME = 16384

/** The Huffman codes of the digits (RFC 7541, appendix B). */
const digitCodes = ['00000', '00001', '00010', '011001', '011010', '011011', '011100', '011101', '011110', '011111']
/** What the static table has for `:status`, from index 8 on. */
const indexedStatus = [200, 204, 206, 304, 400, 404, 500]

/** The status, which is the first field of a response. */
function statusOf (block: Buffer): number {
  // An update of the dynamic table's size may come first.
  let position = 0
  while ((block[position]! & 0xe0) === 0x20) position++
  const first = block[position]!
  if ((first & 0x80) !== 0) return indexedStatus[(first & 0x7f) - 8]!
  const length = block[position + 1]! & 0x7f
  const value = block.subarray(position + 2, position + 2 + length)
  if ((block[position + 1]! & 0x80) === 0) return Number(value.toString())
  let bits = [...value].map((byte) => byte.toString(2).padStart(8, '0')).join('')
  let digits = ''
  while (digits.length < 3) {
    const digit = digitCodes.findIndex((code) => bits.startsWith(code))
    digits += digit
    bits = bits.slice(digitCodes[digit]!.length)
  }
  return Number(digits)
}

/** One stream of a `RawSession`. */
export class RawStream {
  readonly id: number
  readonly #session: RawSession
  /** The status of the answer, once it has come. */
  status: number | undefined
  /** Whether END_STREAM has come. */
  hasEnded = false
  /** The code of the RST_STREAM that has come. */
  resetCode: number | undefined
  sendWindow: number
  /** The payload of each DATA frame that has come. */
  readonly chunks: Buffer[] = []
  #taken = 0

  constructor (session: RawSession, id: number, sendWindow: number) {
    this.#session = session
    this.id = id
    this.sendWindow = sendWindow
  }

  get isOver (): boolean {
    return this.hasEnded || this.#isBroken
  }

  get #isBroken (): boolean {
    return this.resetCode !== undefined || this.#session.isClosed
  }

  /** The status; fails when the stream was reset instead. */
  async answer (): Promise<number> {
    await until(() => this.status !== undefined || this.isOver)
    if (this.status === undefined) throw new Error(`no answer, RST_STREAM ${this.resetCode}`)
    return this.status
  }

  /** Sends these bytes in DATA frames of their own: one, where it is not too large and the windows allow it. */
  async send (bytes: Uint8Array, endStream = false): Promise<void> {
    let rest = Buffer.from(bytes)
    do {
      await until(() => this.#isBroken || rest.length === 0 || (this.sendWindow > 0 && this.#session.sendWindow > 0))
      if (this.#isBroken) return
      const length = Math.min(rest.length, MAX_FRAME, this.sendWindow, this.#session.sendWindow)
      this.sendWindow -= length
      this.#session.sendWindow -= length
      const isLast = length === rest.length
      this.#session.send(frameTypes.DATA, isLast && endStream ? flags.END_STREAM : 0, this.id, rest.subarray(0, length))
      rest = rest.subarray(length)
    } while (rest.length > 0)
  }

  /** Ends this side. */
  end (): void {
    this.#session.send(frameTypes.DATA, flags.END_STREAM, this.id)
  }

  reset (code: number): void {
    this.#session.send(frameTypes.RST_STREAM, 0, this.id, uint32(code))
  }

  /** Lets the server send this much more. */
  allow (bytes: number): void {
    this.#session.send(frameTypes.WINDOW_UPDATE, 0, this.id, uint32(bytes))
  }

  /** Bytes that have come and were not read. */
  get unread (): Buffer {
    return Buffer.concat(this.chunks).subarray(this.#taken)
  }

  async read (length: number): Promise<Buffer> {
    let available = 0
    let counted = 0
    await until(() => {
      while (counted < this.chunks.length) available += this.chunks[counted++]!.length
      return available - this.#taken >= length || this.isOver
    })
    const bytes = this.unread.subarray(0, length)
    if (bytes.length < length) throw new Error(`the stream ended after ${bytes.length} of ${length} bytes`)
    this.#taken += length
    return bytes
  }

  async readToEnd (): Promise<Buffer> {
    await until(() => this.isOver)
    const bytes = this.unread
    this.#taken += bytes.length
    return bytes
  }
}

export interface RawSessionOptions {
  /** By identifier. */
  settings?: Record<number, number>
  /** Whether what was received is given back to the server's windows at once; default: true. */
  updatesWindows?: boolean
  tls?: boolean
  localAddress?: string
  /** Leaves the connection open when the server has ended its side. */
  allowHalfOpen?: boolean
}

export class RawSession {
  readonly socket: Socket
  /** All frames that have come. */
  readonly frames: Http2Frame[] = []
  readonly streams = new Map<number, RawStream>()
  isClosed = false
  answersPings = true
  sendWindow = DEFAULT_WINDOW
  #initialSendWindow = DEFAULT_WINDOW
  readonly #updatesWindows: boolean
  #received: Buffer = Buffer.alloc(0)
  #nextId = 1

  constructor (socket: Socket, { settings = {}, updatesWindows = true }: RawSessionOptions) {
    this.socket = socket
    this.#updatesWindows = updatesWindows
    socket.on('error', () => {})
    socket.on('close', () => { this.isClosed = true })
    socket.on('data', (chunk: Buffer) => this.#read(chunk))
    socket.write(PREFACE)
    this.settings({ [settingIds.HEADER_TABLE_SIZE]: 0, ...settings })
  }

  /** Connects to the server of `app` and waits for its settings; the test's end destroys the connection. */
  static async open (t: Test, app: FastifyInstance, options: RawSessionOptions = {}): Promise<RawSession> {
    const { port } = app.server.address() as AddressInfo
    const { localAddress, allowHalfOpen = false } = options
    const address = { port, host: '127.0.0.1', noDelay: true, allowHalfOpen, ...(localAddress === undefined ? {} : { localAddress }) }
    const socket = options.tls === true ? connectTls({ ...address, rejectUnauthorized: false, ALPNProtocols: ['h2'] }) : connect(address)
    t.teardown(() => socket.destroy())
    const session = new RawSession(socket, options)
    // Its acknowledgement shows that the server knows our settings.
    await until(() => session.find(frameTypes.SETTINGS, flags.ACK) !== undefined || session.isClosed)
    return session
  }

  /** The first frame that has come of this type with these flags. */
  find (type: number, withFlags = 0): Http2Frame | undefined {
    return this.frames.find((frame) => frame.type === type && (frame.flags & withFlags) === withFlags)
  }

  /** The settings that the server has sent, in order. */
  get serverSettings (): Array<[id: number, value: number]> {
    return this.frames
      .filter(({ type }) => type === frameTypes.SETTINGS)
      .flatMap(({ payload }) => settingsIn(payload))
  }

  /** The code of the GOAWAY that has come. */
  get goAwayCode (): number | undefined {
    return this.find(frameTypes.GOAWAY)?.payload.readUInt32BE(4)
  }

  send (type: number, withFlags: number, streamId: number, payload?: Uint8Array): void {
    this.socket.write(encodeFrame(type, withFlags, streamId, payload))
  }

  settings (settings: Record<number, number>): void {
    const payload = Object.entries(settings).map(([id, value]) => {
      const entry = Buffer.alloc(6)
      entry.writeUInt16BE(Number(id))
      entry.writeUInt32BE(value, 2)
      return entry
    })
    this.send(frameTypes.SETTINGS, 0, 0, Buffer.concat(payload))
  }

  /** Lets the server send this much more on all streams together. */
  allow (bytes: number): void {
    this.send(frameTypes.WINDOW_UPDATE, 0, 0, uint32(bytes))
  }

  goAway (lastStreamId: number, code = 0): void {
    this.send(frameTypes.GOAWAY, 0, 0, Buffer.concat([uint32(lastStreamId), uint32(code)]))
  }

  /** Sends a PING and waits for its answer: by then, what was sent before has been handled by the server. */
  async roundTrip (): Promise<void> {
    const before = this.frames.length
    this.send(frameTypes.PING, 0, 0, Buffer.alloc(8))
    await until(() => this.frames.slice(before).some(({ type, flags: f }) => type === frameTypes.PING && (f & flags.ACK) !== 0) || this.isClosed)
  }

  /** Sends the HEADERS of a new stream, and nothing that has not been asked for. */
  request (headers: HeaderList, endStream = false): RawStream {
    const stream = new RawStream(this, this.#nextId, this.#initialSendWindow)
    this.#nextId += 2
    this.streams.set(stream.id, stream)
    this.send(frameTypes.HEADERS, flags.END_HEADERS | (endStream ? flags.END_STREAM : 0), stream.id, hpack(headers))
    return stream
  }

  /** Opens a tunnel that must not be refused. */
  async connect (path: string, protocol = 'websocket', headers: Record<string, string> = {}): Promise<RawStream> {
    const stream = this.request(connectHeaders(path, protocol, headers))
    const status = await stream.answer()
    if (status !== 200) throw new Error(`refused: ${status} ${(await stream.readToEnd()).toString()}`)
    return stream
  }

  #read (chunk: Buffer): void {
    const { frames, rest } = decodeFrames(Buffer.concat([this.#received, chunk]))
    this.#received = rest
    for (const frame of frames) this.#take(frame)
  }

  #take (frame: Http2Frame): void {
    this.frames.push(frame)
    const stream = this.streams.get(frame.stream)
    const isAck = (frame.flags & flags.ACK) !== 0
    switch (frame.type) {
      case frameTypes.SETTINGS:
        if (!isAck) this.#takeSettings(settingsIn(frame.payload))
        return
      case frameTypes.PING:
        if (!isAck && this.answersPings) this.send(frameTypes.PING, flags.ACK, 0, frame.payload)
        return
      case frameTypes.WINDOW_UPDATE:
        if (frame.stream === 0) this.sendWindow += frame.payload.readUInt32BE()
        else if (stream !== undefined) stream.sendWindow += frame.payload.readUInt32BE()
        return
      case frameTypes.RST_STREAM:
        stream!.resetCode = frame.payload.readUInt32BE()
        return
      case frameTypes.HEADERS:
        stream!.status ??= statusOf(frame.payload)
        break
      case frameTypes.DATA:
        stream!.chunks.push(frame.payload)
        if (this.#updatesWindows && frame.payload.length > 0) {
          this.allow(frame.payload.length)
          stream!.allow(frame.payload.length)
        }
        break
      default:
        return
    }
    if ((frame.flags & flags.END_STREAM) !== 0) stream!.hasEnded = true
  }

  #takeSettings (settings: Array<[number, number]>): void {
    this.send(frameTypes.SETTINGS, flags.ACK, 0)
    for (const [id, value] of settings) {
      if (id === settingIds.INITIAL_WINDOW_SIZE) this.#initialSendWindow = value
    }
  }
}

function settingsIn (payload: Buffer): Array<[id: number, value: number]> {
  return Array.from({ length: payload.length / 6 }, (_, index) => [payload.readUInt16BE(index * 6), payload.readUInt32BE(index * 6 + 2)])
}
