import { connect, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'

/** What a server has answered, as it came. */
export interface Answer {
  statusCode: number
  /** The status line and the headers, with the empty line behind them. */
  head: string
  /** Names in lower case; a repeated one has its values joined by commas. */
  headers: Record<string, string>
  body: string
}

export interface RequestParts {
  method?: string
  /** The `Host` header; false for none. */
  host?: string | false
  version?: string
  headers?: Record<string, string | string[]>
  body?: string
}

/** The bytes of a request. */
export function requestText (path: string, { method = 'GET', host = 'localhost', version = '1.1', headers = {}, body = '' }: RequestParts = {}): string {
  const lines = [`${method} ${path} HTTP/${version}`]
  if (host !== false) lines.push(`Host: ${host}`)
  for (const [name, value] of Object.entries(headers)) {
    for (const each of [value].flat()) lines.push(`${name}: ${each}`)
  }
  return [...lines, '', body].join('\r\n')
}

/** The bytes of a request that asks for an upgrade, by default to a bare tunnel. */
export function upgradeText (path: string, { headers, ...parts }: RequestParts = {}): string {
  return requestText(path, { ...parts, headers: { Connection: 'Upgrade', Upgrade: 'spanza', ...headers } })
}

export interface DialOptions {
  port?: number
  host?: string
  localAddress?: string
  /** A unix socket, in place of port and host. */
  path?: string
  tls?: boolean
  /** Leaves it to the test to end its side when the server has ended its own. */
  allowHalfOpen?: boolean
}

/** A client that knows nothing but bytes. It keeps what comes until a test asks for it. */
export class RawClient {
  readonly socket: Socket
  /** Settles when the connection is closed, with the error if one broke it. */
  readonly closed: Promise<NodeJS.ErrnoException | undefined>
  #received = Buffer.alloc(0)
  #hasEnded = false
  #wake: (() => void) | undefined

  constructor (socket: Socket) {
    this.socket = socket
    let failure: NodeJS.ErrnoException | undefined
    socket.on('error', (error) => { failure = error })
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk])
      this.#wake?.()
    })
    this.closed = new Promise((resolve) => socket.on('close', () => resolve(failure)))
    for (const event of ['end', 'close']) {
      socket.on(event, () => {
        this.#hasEnded = true
        this.#wake?.()
      })
    }
  }

  /** Connects to a server, by default the one of `app`; the test's end destroys the connection. */
  static async dial (t: Test, app: FastifyInstance, options: DialOptions = {}): Promise<RawClient> {
    const { tls = false, ...rest } = options
    const target = options.path === undefined ? { port: (app.server.address() as AddressInfo).port, host: '127.0.0.1' } : {}
    const settings = { noDelay: true, ...target, ...rest }
    const socket = tls ? connectTls({ ...settings, rejectUnauthorized: false }) : connect(settings as NetConnectOpts)
    t.teardown(() => socket.destroy())
    const client = new RawClient(socket)
    await new Promise<void>((resolve, reject) => {
      socket.once(tls ? 'secureConnect' : 'connect', resolve)
      socket.once('error', reject)
    })
    return client
  }

  /** What has come and was not asked for yet. */
  get unread (): string {
    return this.#received.toString('latin1')
  }

  /** Resolves when the bytes are with the kernel. */
  async send (data: string | Uint8Array): Promise<void> {
    await new Promise<void>((resolve, reject) => this.socket.write(data, (error) => error == null ? resolve() : reject(error)))
  }

  /** The next `length` bytes. */
  async read (length: number): Promise<Buffer> {
    await this.#until(() => this.#received.length >= length, `${length} bytes`)
    return this.#take(length)
  }

  /** What comes until the server ends its side. */
  async readToEnd (): Promise<Buffer> {
    while (!this.#hasEnded) await this.#more()
    return this.#take(this.#received.length)
  }

  /** The next answer's status line and headers, and nothing that follows them. */
  async head (): Promise<Answer> {
    let end = -1
    await this.#until(() => (end = this.#received.indexOf('\r\n\r\n')) >= 0, 'the end of the headers')
    const head = this.#take(end + 4).toString('latin1')
    const [statusLine, ...lines] = head.trimEnd().split('\r\n')
    const headers: Record<string, string> = {}
    for (const line of lines) {
      const colon = line.indexOf(':')
      const name = line.slice(0, colon).toLowerCase()
      const value = line.slice(colon + 1).trim()
      headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`
    }
    return { statusCode: Number(statusLine!.split(' ')[1]), head, headers, body: '' }
  }

  /** The next answer, content included; one without a length goes to the end of the stream. A 101 has none. */
  async answer (): Promise<Answer> {
    const answer = await this.head()
    if (answer.statusCode === 101) return answer
    const length = answer.headers['content-length']
    const content = length === undefined ? await this.readToEnd() : await this.read(Number(length))
    return { ...answer, body: content.toString() }
  }

  /** Asks for a tunnel and gives back the head of the 101. */
  async upgrade (t: Test, path: string, parts?: RequestParts): Promise<Answer> {
    await this.send(upgradeText(path, parts))
    const answer = await this.head()
    t.equal(answer.statusCode, 101, `101 for ${path}`)
    return answer
  }

  async #until (isThere: () => boolean, what: string): Promise<void> {
    while (!isThere()) {
      if (this.#hasEnded) throw new Error(`the stream ended before ${what}, after: ${this.unread.slice(0, 500)}`)
      await this.#more()
    }
  }

  async #more (): Promise<void> {
    await new Promise<void>((resolve) => { this.#wake = resolve })
  }

  #take (length: number): Buffer {
    const taken = this.#received.subarray(0, length)
    this.#received = this.#received.subarray(length)
    return taken
  }
}
