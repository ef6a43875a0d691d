import { once } from 'node:events'
import { connect, type ClientHttp2Session, type ClientHttp2Stream, type IncomingHttpHeaders, type OutgoingHttpHeaders, type Settings } from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'

export interface SessionOptions {
  tls?: boolean
  settings?: Settings
}

/** A session of Node's client with the server of `app`, whose settings have come; the test's end destroys it. */
export async function openSession (t: Test, app: FastifyInstance, { tls = false, settings = {} }: SessionOptions = {}): Promise<ClientHttp2Session> {
  const { port } = app.server.address() as AddressInfo
  const session = connect(`${tls ? 'https' : 'http'}://127.0.0.1:${port}`, { settings, rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  return session
}

/** An answer with its content. */
export interface Http2Answer {
  statusCode: number
  headers: IncomingHttpHeaders
  body: string
}

/** One stream of a session: a request and what is answered, or a tunnel. It keeps what comes until a test asks for it. */
export class Http2Client {
  readonly stream: ClientHttp2Stream
  /** Settles when the stream is closed, with the code of its RST_STREAM. */
  readonly closed: Promise<number>
  readonly #response: Promise<IncomingHttpHeaders>
  #received: Buffer[] = []
  #length = 0
  #hasEnded = false
  #wake: (() => void) | undefined

  constructor (stream: ClientHttp2Stream) {
    this.stream = stream
    stream.on('error', () => {})
    stream.on('data', (chunk: Buffer) => {
      this.#received.push(chunk)
      this.#length += chunk.length
      this.#wake?.()
    })
    for (const event of ['end', 'close']) {
      stream.on(event, () => {
        this.#hasEnded = true
        this.#wake?.()
      })
    }
    this.closed = new Promise((resolve) => stream.on('close', () => resolve(stream.rstCode!)))
    this.#response = new Promise((resolve, reject) => {
      stream.on('response', resolve)
      stream.on('close', () => reject(new Error(`closed without an answer, with code ${stream.rstCode}`)))
    })
    this.#response.catch(() => {})
  }

  /** Whether the server has ended the stream, or it was reset. */
  get hasEnded (): boolean {
    return this.#hasEnded
  }

  /** The status and the headers, without what comes behind them. */
  async head (): Promise<IncomingHttpHeaders> {
    return await this.#response
  }

  async answer (): Promise<Http2Answer> {
    const headers = await this.head()
    return { statusCode: headers[':status'] as unknown as number, headers, body: (await this.readToEnd()).toString() }
  }

  send (bytes: Uint8Array | string): void {
    this.stream.write(bytes)
  }

  /** The next `length` bytes. */
  async read (length: number): Promise<Buffer> {
    while (this.#length < length) {
      if (this.#hasEnded) throw new Error(`the stream ended ${length - this.#length} bytes before the awaited ones`)
      await this.#more()
    }
    return this.#take(length)
  }

  /** What comes until the server ends its side. */
  async readToEnd (): Promise<Buffer> {
    while (!this.#hasEnded) await this.#more()
    return this.#take(this.#length)
  }

  async #more (): Promise<void> {
    await new Promise<void>((resolve) => { this.#wake = resolve })
  }

  #take (length: number): Buffer {
    const all = this.#received.length === 1 ? this.#received[0]! : Buffer.concat(this.#received)
    this.#received = [all.subarray(length)]
    this.#length = all.length - length
    return all.subarray(0, length)
  }
}

export interface ConnectParts {
  /** Default: `websocket`. */
  protocol?: string
  headers?: OutgoingHttpHeaders
  /** Whether the stream ends with the request. */
  endStream?: boolean
}

/** Asks for a tunnel by an extended CONNECT; `sec-websocket-version` is there unless a header says otherwise. */
export function connectStream (session: ClientHttp2Session, path: string, { protocol = 'websocket', headers, endStream = false }: ConnectParts = {}): Http2Client {
  return new Http2Client(session.request({
    ':method': 'CONNECT',
    ':protocol': protocol,
    ':path': path,
    ...(protocol === 'websocket' ? { 'sec-websocket-version': '13' } : {}),
    ...headers
  }, { endStream }))
}

/** A tunnel that the relay must not refuse. */
export async function openTunnelOn (session: ClientHttp2Session, path: string, parts?: ConnectParts): Promise<Http2Client> {
  const client = connectStream(session, path, parts)
  const { ':status': status } = await client.head()
  if (Number(status) === 200) return client
  throw new Error(`refused: ${status} ${(await client.readToEnd()).toString()}`)
}

/** Any other request. */
export async function request (session: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: string): Promise<Http2Answer> {
  const client = new Http2Client(session.request(headers, { endStream: body === undefined }))
  if (body !== undefined) client.stream.end(body)
  return await client.answer()
}
