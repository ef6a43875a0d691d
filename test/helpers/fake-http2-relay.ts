import { once } from 'node:events'
import {
  createSecureServer, createServer,
  type Http2Server, type Http2SecureServer, type IncomingHttpHeaders, type SecureServerOptions, type ServerHttp2Session, type ServerHttp2Stream, type ServerOptions
} from 'node:http2'
import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'
import type { Framing } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { frames } from './fake-relay.ts'
import { decodeFrames, encodeFrame, flags, frameTypes, hpack, PREFACE, uint32, type Http2Frame } from './http2-frames.ts'
import { Mailbox } from './mailbox.ts'
import { sinkOf, type ControlFrame } from './sink.ts'

export interface Http2Request {
  stream: ServerHttp2Stream
  headers: IncomingHttpHeaders
  session: ServerHttp2Session
}

/** Answers one request; false for the usual answer. */
export type Http2Answer = (request: Http2Request) => void | false

export interface FakeHttp2RelayOptions {
  tls?: SecureServerOptions
  /** For Node's server. */
  server?: ServerOptions
  /** Answers to the first requests, in order; later ones get the usual 200. */
  answers?: Http2Answer[]
}

/** The relay's end of a tunnel of datagrams. */
export class FakeHttp2Tunnel {
  readonly datagrams = new Mailbox<Buffer>()
  readonly controls = new Mailbox<ControlFrame>()
  readonly keepalives = new Mailbox<true>()
  readonly stream: ServerHttp2Stream
  readonly framing: Framing

  constructor (stream: ServerHttp2Stream, framing: Framing) {
    this.stream = stream
    this.framing = framing
    const decoder = framing.createDecoder(sinkOf(this), { maxPacketSize: 65535 })
    stream.on('data', (chunk: Buffer) => { decoder.push(chunk) })
    stream.on('end', () => stream.end())
  }

  send (...datagrams: Buffer[]): void {
    this.stream.write(frames(this.framing, datagrams))
  }
}

/** A relay that speaks nothing but HTTP/2, on 127.0.0.1 until the test ends. Tunnels of bytes come back as they are. */
export class FakeHttp2Relay {
  readonly requests = new Mailbox<Http2Request>()
  readonly tunnels = new Mailbox<FakeHttp2Tunnel>()
  readonly sessions = new Mailbox<ServerHttp2Session>()
  /** The connections, as `session.socket` cannot be cut. */
  readonly sockets = new Mailbox<Socket>()
  readonly server: Http2Server | Http2SecureServer
  readonly answers: Http2Answer[]
  readonly #secure: boolean

  constructor (t: Test, { tls, server, answers = [] }: FakeHttp2RelayOptions) {
    this.#secure = tls !== undefined
    this.answers = answers
    const options = { settings: { enableConnectProtocol: true }, ...server }
    this.server = tls === undefined ? createServer(options) : createSecureServer({ ...options, ...tls })
    this.server.on('connection', (socket: Socket) => this.sockets.push(socket))
    this.server.on('session', (session: ServerHttp2Session) => this.sessions.push(session))
    this.server.on('sessionError', () => {})
    this.server.on('stream', (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => {
      stream.on('error', () => {})
      const request = { stream, headers, session: stream.session as ServerHttp2Session }
      this.requests.push(request)
      const answer = this.answers.shift()
      if (answer === undefined || answer(request) === false) this.#accept(stream, headers)
    })
    t.teardown(() => {
      for (const socket of this.sockets.all) socket.destroy()
      this.server.close()
    })
  }

  get port (): number {
    return (this.server.address() as AddressInfo).port
  }

  get url (): string {
    return `${this.#secure ? 'https' : 'http'}://127.0.0.1:${this.port}/relay/home?x=1`
  }

  #accept (stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const asked = headers['spanza-framing']
    if (asked === undefined) {
      stream.respond({ ':status': 200 })
      stream.pipe(stream)
      return
    }
    const framing = String(asked).startsWith('len16') ? len16 : wg
    stream.respond({ ':status': 200, 'spanza-framing': framing.name, 'spanza-max-packet': '2048' })
    this.tunnels.push(new FakeHttp2Tunnel(stream, framing))
  }
}

export async function fakeHttp2Relay (t: Test, options: FakeHttp2RelayOptions = {}): Promise<FakeHttp2Relay> {
  const relay = new FakeHttp2Relay(t, options)
  relay.server.listen(0, '127.0.0.1')
  await once(relay.server, 'listening')
  return relay
}

/** Refuses with a status, a JSON body or none, and further headers. */
export function refuseHttp2 (status: number, body?: object, headers: Record<string, string> = {}): Http2Answer {
  return ({ stream }) => {
    stream.respond({ ':status': status, ...headers })
    stream.end(body === undefined ? '' : JSON.stringify(body))
  }
}

export { encodeFrame }
export const { DATA, HEADERS, RST_STREAM, GOAWAY } = frameTypes
export const { END_STREAM } = flags

const { SETTINGS, PING } = frameTypes
const { ACK, END_HEADERS } = flags

const ENABLE_CONNECT_PROTOCOL = Buffer.from([0, 8, 0, 0, 0, 1])
/** `:status: 200`, of the table that HPACK begins with. */
const STATUS_200 = Buffer.from([0x88])

/** One connection of a server that does with frames what the test says, where Node would not. */
export class FramePeer {
  /** Those of the types DATA, HEADERS, RST_STREAM and GOAWAY. */
  readonly frames = new Mailbox<Http2Frame>()
  readonly pings = new Mailbox<Http2Frame>()
  answersPings = true
  readonly closed: Promise<unknown>
  readonly socket: Socket
  #bytes: Buffer = Buffer.alloc(0)
  #hasPreface = false

  constructor (socket: Socket, settings: Buffer) {
    this.socket = socket
    // Also where it breaks, which `once` would reject for.
    this.closed = new Promise((resolve) => socket.on('close', resolve))
    socket.on('error', () => {})
    this.send(SETTINGS, 0, 0, settings)
    socket.on('data', (chunk) => {
      this.#bytes = Buffer.concat([this.#bytes, chunk])
      this.#read()
    })
  }

  send (type: number, flags: number, stream: number, payload: Buffer | string = ''): void {
    this.socket.write(encodeFrame(type, flags, stream, payload))
  }

  /** Opens the tunnel that was asked for with this stream. */
  accept (stream: number, headers: Record<string, string> = {}): void {
    this.send(HEADERS, END_HEADERS, stream, Buffer.concat([STATUS_200, hpack(Object.entries(headers))]))
  }

  reset (stream: number, code: number): void {
    this.send(RST_STREAM, 0, stream, uint32(code))
  }

  goaway (lastStream: number, code: number): void {
    this.send(GOAWAY, 0, 0, Buffer.concat([uint32(lastStream), uint32(code)]))
  }

  #read (): void {
    if (!this.#hasPreface) {
      if (this.#bytes.length < PREFACE.length) return
      this.#hasPreface = true
      this.#bytes = this.#bytes.subarray(PREFACE.length)
    }
    const { frames, rest } = decodeFrames(this.#bytes)
    this.#bytes = rest
    for (const frame of frames) this.#take(frame)
  }

  #take (frame: Http2Frame): void {
    if (frame.type === SETTINGS && frame.flags !== ACK) this.send(SETTINGS, ACK, 0)
    if (frame.type === PING) {
      this.pings.push(frame)
      if (this.answersPings) this.send(PING, ACK, 0, frame.payload)
    }
    if (([DATA, HEADERS, RST_STREAM, GOAWAY] as number[]).includes(frame.type)) this.frames.push(frame)
  }
}

/** A server of frames; each connection is in the mailbox. */
export async function framesServer (t: Test, settings = ENABLE_CONNECT_PROTOCOL): Promise<{ url: string, peers: Mailbox<FramePeer> }> {
  const peers = new Mailbox<FramePeer>()
  const server = createTcpServer({ noDelay: true }, (socket) => {
    t.teardown(() => socket.destroy())
    peers.push(new FramePeer(socket, settings))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/relay`, peers }
}
