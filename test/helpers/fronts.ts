import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { CLOSING } from '../../lib/framing/wg.ts'
import { connectHeaders, RawSession, type RawStream } from '../conformance/raw-http2.ts'
import { message, opcodes, readFrame } from '../conformance/websocket-frames.ts'
import { RawClient, requestText, upgradeText } from './raw-client.ts'
import { serverCertificate } from './relay-app.ts'

/** Every way to ask for a tunnel, as one interface: what holds for one has to hold for all. Clients are made of bytes, and have an address. */

export type Protocol = 'spanza' | 'websocket'
/** What a tunnel carries: datagrams (`wg`, or messages of a WebSocket), or a stream of bytes. */
export type Carries = 'datagrams' | 'bytes'

export interface Front {
  name: string
  isHttp2: boolean
  protocol: Protocol
  /** For Fastify. */
  server: object
  /** The status of a tunnel. */
  opened: 101 | 200
  /** A client with this address; over HTTP/2 all its tunnels are streams of one connection. */
  client: (t: Test, app: FastifyInstance, localAddress: string) => Promise<FrontClient>
}

export interface FrontClient {
  ask: (path: string, carries?: Carries, headers?: Record<string, string>) => Promise<Asked>
  /** The status of a REST route. */
  get: (path: string) => Promise<number>
  /** Breaks all connections. */
  destroy: () => void
}

/** Of WireGuard's messages of the types 1 to 3. */
const messageSizes = [148, 92, 64]
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

/** A request for a tunnel, and the tunnel. */
export class Asked {
  readonly #source: RawClient | RawStream
  readonly #isWebSocket: boolean

  constructor (source: RawClient | RawStream, protocol: Protocol) {
    this.#source = source
    this.#isWebSocket = protocol === 'websocket'
  }

  /** The status, and the code in the content of a refusal. */
  async answer (): Promise<{ status: number, code?: string }> {
    if (this.#source instanceof RawClient) {
      const { statusCode, body } = await this.#source.answer()
      return { status: statusCode, ...codeIn(body) }
    }
    const status = await this.#source.answer()
    return status === 200 ? { status } : { status, ...codeIn((await this.#source.readToEnd()).toString()) }
  }

  async send (bytes: Uint8Array): Promise<void> {
    await this.#source.send(bytes)
  }

  async sendDatagram (datagram: Buffer): Promise<void> {
    if (this.#isWebSocket) return await this.send(message(datagram))
    const head = Buffer.alloc(4)
    head.writeUIntBE(datagram.length, 1, 3)
    await this.send(Buffer.concat([head, datagram]))
  }

  /** The next datagram; what the relay says about itself is passed over. */
  async readDatagram (): Promise<Buffer> {
    return (await this.#next()).datagram!
  }

  /** The code that the tunnel is closed with, in a Close frame or a closing frame. */
  async closeCode (): Promise<number> {
    return (await this.#next()).code!
  }

  async read (length: number): Promise<Buffer> {
    return await this.#source.read(length)
  }

  /** Ends its half. */
  end (): void {
    if (this.#source instanceof RawClient) this.#source.socket.end()
    else this.#source.end()
  }

  /** Breaks it off. */
  break (): void {
    if (this.#source instanceof RawClient) this.#source.socket.destroy()
    else this.#source.reset(8)
  }

  /** Resolves when the other side has ended it. */
  async ended (): Promise<void> {
    await this.#source.readToEnd()
  }

  async #next (): Promise<{ datagram?: Buffer, code?: number }> {
    for (;;) {
      if (this.#isWebSocket) {
        const { first, payload } = await readFrame(this.#source)
        if (first === (0x80 | opcodes.BINARY)) return { datagram: payload }
        if (first === (0x80 | opcodes.CLOSE)) return { code: payload.readUInt16BE() }
      } else {
        const head = await this.#source.read(4)
        const type = head[0]!
        if (type > 0 && type <= 4) {
          const length = type === 4 ? head.readUIntBE(1, 3) : messageSizes[type - 1]!
          return { datagram: Buffer.concat([Buffer.from([type, 0, 0, 0]), await this.#source.read(length - 4)]) }
        }
        const payload = await this.#source.read(head.readUIntBE(1, 3))
        if (head[0] === 0) return { datagram: payload }
        if (head[0] === CLOSING) return { code: payload.readUInt16BE() }
      }
    }
  }
}

function codeIn (body: string): { code?: string } {
  const { code } = body.startsWith('{') ? JSON.parse(body) as { code?: string } : {}
  return code === undefined ? {} : { code }
}

function headersFor (protocol: Protocol, carries: Carries, isHttp2: boolean, headers: Record<string, string>): Record<string, string> {
  if (protocol === 'spanza') return { ...(carries === 'datagrams' ? { 'spanza-framing': 'wg' } : {}), ...headers }
  return {
    ...(isHttp2 ? {} : { upgrade: 'websocket', 'sec-websocket-key': KEY, 'sec-websocket-version': '13' }),
    'sec-websocket-protocol': carries === 'datagrams' ? 'spanza.v1' : 'spanza.raw.v1',
    ...headers
  }
}

function http1Front (tls: boolean, protocol: Protocol): Front {
  return {
    name: `${protocol} over HTTP/1.1${tls ? ', TLS' : ''}`,
    isHttp2: false,
    protocol,
    server: tls ? { http2: true, https: { ...serverCertificate(), allowHTTP1: true } } : {},
    opened: 101,
    client: async (t, app, localAddress) => {
      const dial = { tls, localAddress, allowHalfOpen: true }
      const clients: RawClient[] = []
      return {
        ask: async (path, carries = 'datagrams', headers = {}) => {
          const client = await RawClient.dial(t, app, dial)
          clients.push(client)
          const { upgrade = 'spanza', ...others } = headersFor(protocol, carries, false, headers)
          await client.send(upgradeText(path, { headers: { Upgrade: upgrade, ...others } }))
          return new Asked(client, protocol)
        },
        get: async (path) => {
          const client = await RawClient.dial(t, app, dial)
          await client.send(requestText(path, { headers: { Connection: 'close' } }))
          return (await client.answer()).statusCode
        },
        destroy: () => { for (const { socket } of clients) socket.destroy() }
      }
    }
  }
}

function http2Front (tls: boolean, protocol: Protocol): Front {
  return {
    name: `${protocol} over HTTP/2${tls ? ', TLS' : ''}`,
    isHttp2: true,
    protocol,
    server: { http2: true, ...(tls ? { https: { ...serverCertificate(), allowHTTP1: true } } : {}) },
    opened: 200,
    client: async (t, app, localAddress) => {
      const session = await RawSession.open(t, app, { tls, localAddress, allowHalfOpen: true })
      return {
        ask: async (path, carries = 'datagrams', headers = {}) =>
          new Asked(session.request(connectHeaders(path, protocol, headersFor(protocol, carries, true, headers))), protocol),
        get: async (path) => await session.request(
          [[':method', 'GET'], [':scheme', 'https'], [':path', path], [':authority', 'localhost']], true).answer(),
        destroy: () => session.socket.destroy()
      }
    }
  }
}

export const fronts: readonly Front[] = [false, true].flatMap((tls) => (['spanza', 'websocket'] as const).flatMap((protocol) =>
  [http1Front(tls, protocol), http2Front(tls, protocol)]))
