import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createTlsServer, type ServerOptions } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import type { Test } from 'tap'
import type { Framing } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { Mailbox } from './mailbox.ts'
import { sinkOf, type ControlFrame } from './sink.ts'

/** Answers one upgrade request; false for the usual answer. */
export type Answer = (request: IncomingMessage, socket: Socket) => void | false

export interface FakeRelayOptions {
  tls?: ServerOptions
  maxPacket?: number
  /** Answers to the first requests, in order; later ones get the usual 101. */
  answers?: Answer[]
}

/** The relay's end of a tunnel of datagrams. */
export class FakeTunnel {
  readonly datagrams = new Mailbox<Buffer>()
  readonly controls = new Mailbox<ControlFrame>()
  readonly keepalives = new Mailbox<true>()
  readonly chunks: Buffer[] = []
  readonly ended: Promise<unknown>
  readonly socket: Socket
  readonly request: IncomingMessage
  readonly framing: Framing

  constructor (socket: Socket, request: IncomingMessage, framing: Framing, head: Buffer) {
    this.socket = socket
    this.request = request
    this.framing = framing
    this.ended = new Promise((resolve) => { socket.on('close', resolve) })
    const decoder = framing.createDecoder(sinkOf(this), { maxPacketSize: 65535 })
    if (head.length > 0) socket.unshift(head)
    socket.on('data', (chunk) => {
      this.chunks.push(chunk)
      const fault = decoder.push(chunk)
      if (fault !== undefined) throw new Error(fault.text)
    })
    socket.on('end', () => socket.end())
  }

  send (...datagrams: Buffer[]): void {
    this.socket.write(frames(this.framing, datagrams))
  }
}

/** The bytes of these datagrams on a tunnel. */
export function frames (framing: Framing, datagrams: Buffer[]): Buffer {
  return Buffer.concat(datagrams.map((datagram) => {
    const target = Buffer.alloc(datagram.length + framing.maxOverhead)
    return target.subarray(0, framing.encode(target, 0, datagram, 0, datagram.length, false))
  }))
}

/** The usual answer's head, without its last empty line. */
export const SWITCHING = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n'

/** Refuses with a status, a JSON body as Fastify writes it or none, and further header lines. */
export function refuse (status: string, body?: object, headers = ''): Answer {
  return (_request, socket) => {
    const text = body === undefined ? '' : JSON.stringify({ statusCode: parseInt(status), error: status.slice(4), ...body })
    socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: ${Buffer.byteLength(text)}\r\n${headers}\r\n${text}`)
  }
}

/** Writes these bytes as the answer. */
export function say (text: string | Buffer): Answer {
  return (_request, socket) => { socket.write(text) }
}

/** A relay that listens on 127.0.0.1 until the test ends. */
export class FakeRelay {
  readonly requests = new Mailbox<IncomingMessage>()
  readonly tunnels = new Mailbox<FakeTunnel>()
  readonly server: Server
  readonly answers: Answer[]
  readonly #secure: boolean
  readonly #maxPacket: number

  constructor (t: Test, { tls, maxPacket = 65535, answers = [] }: FakeRelayOptions) {
    this.#secure = tls !== undefined
    this.#maxPacket = maxPacket
    this.answers = answers
    this.server = tls === undefined ? createServer() : createTlsServer(tls)
    const sockets = new Set<Socket>()
    this.server.on('connection', (socket: Socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
    this.server.on('upgrade', (request, socket, head) => {
      socket.on('error', () => {})
      this.requests.push(request)
      const answer = this.answers.shift()
      if (answer === undefined || answer(request, socket as Socket) === false) this.#accept(request, socket as Socket, head)
    })
    t.teardown(() => {
      for (const socket of sockets) socket.destroy()
      this.server.close()
    })
  }

  get port (): number {
    return (this.server.address() as AddressInfo).port
  }

  get url (): string {
    return `${this.#secure ? 'https' : 'http'}://127.0.0.1:${this.port}/relay/home?x=1`
  }

  #accept (request: IncomingMessage, socket: Socket, head: Buffer): void {
    const asked = String(request.headers['spanza-framing']).split(',')[0]!.trim()
    const framing = asked === 'len16' ? len16 : wg
    socket.write(`${SWITCHING}Spanza-Framing: ${framing.name}\r\nSpanza-Max-Packet: ${this.#maxPacket}\r\n\r\n`)
    this.tunnels.push(new FakeTunnel(socket, request, framing, head))
  }
}

export async function fakeRelay (t: Test, options: FakeRelayOptions = {}): Promise<FakeRelay> {
  const relay = new FakeRelay(t, options)
  relay.server.listen(0, '127.0.0.1')
  await once(relay.server, 'listening')
  return relay
}
