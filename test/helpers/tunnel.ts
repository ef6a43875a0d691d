import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import type { Framing, FramingName } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { CLOSING, PONG, PING, readClosing, wg } from '../../lib/framing/wg.ts'
import { frames } from './fake-relay.ts'
import { Mailbox } from './mailbox.ts'
import { upgradeText } from './raw-client.ts'
import { sinkOf, type ControlFrame } from './sink.ts'

export interface TunnelOptions {
  path?: string
  /** Default: `wg`. */
  framing?: FramingName
  /** Instead of `spanza`. */
  protocol?: 'UoTLV/1'
  id?: string
  key?: Buffer
  context?: string
  /** The address it is opened from; default: 127.0.0.1. */
  from?: string
  /** Whether what comes is read; default: true. */
  reads?: boolean
}

/** The client's end of a tunnel, made of nothing but a socket and a framing. */
export class Tunnel {
  readonly socket: Socket
  readonly datagrams = new Mailbox<Buffer>()
  readonly controls = new Mailbox<ControlFrame>()
  readonly keepalives = new Mailbox<true>()
  /** Everything that came, as it was cut on its way. */
  readonly chunks: Buffer[] = []
  /** The error the socket broke with. */
  error: Error | undefined
  readonly ended: Promise<unknown>
  readonly closed: Promise<unknown>
  readonly #framing: Framing | undefined
  #pings = 0
  #taken = 0

  constructor (socket: Socket, framing: Framing | undefined, reads: boolean) {
    this.socket = socket
    this.#framing = framing
    this.ended = new Promise((resolve) => socket.on('end', resolve))
    this.closed = new Promise((resolve) => socket.on('close', resolve))
    socket.on('error', (error) => { this.error = error })
    if (reads) this.read()
  }

  /** What came on a `raw` tunnel, or all bytes of any other. */
  get bytes (): Buffer {
    return Buffer.concat(this.chunks)
  }

  /** The closing frame, once there is one. */
  get closing (): { code: number, text: string } | undefined {
    const frame = this.controls.all.find(({ type }) => type === CLOSING)
    return frame && readClosing(frame.payload, 0, frame.payload.length)
  }

  /** Begins to read, for good. */
  read (): void {
    const decoder = this.#framing?.createDecoder(sinkOf(this), { maxPacketSize: 65535 })
    this.socket.on('data', (chunk) => {
      this.chunks.push(chunk)
      const fault = decoder?.push(chunk)
      if (fault !== undefined) throw new Error(fault.text)
    })
    this.socket.resume()
  }

  /** Sends datagrams in one write. */
  send (...datagrams: Buffer[]): void {
    this.socket.write(frames(this.#framing!, datagrams))
  }

  write (bytes: Buffer | string): boolean {
    return this.socket.write(bytes)
  }

  /** The datagrams that came since the last time. */
  take (): Buffer[] {
    const all = this.datagrams.all.slice(this.#taken)
    this.#taken = this.datagrams.all.length
    return all
  }

  /** Sends a ping and waits for its pong: by then the relay has done all that was sent before it. */
  async roundTrip (): Promise<void> {
    const payload = Buffer.alloc(8)
    payload.writeUInt32BE(++this.#pings, 4)
    this.write(Buffer.concat([Buffer.from([PING, 0, 0, 8]), payload]))
    while (true) {
      const pong = await this.controls.next()
      if (pong.type === PONG && pong.payload.equals(payload)) return
    }
  }
}

/** Waits until the relay has routed all that these `wg` tunnels have sent, and until it has come out of them. */
export async function settle (...tunnels: Tunnel[]): Promise<void> {
  for (let i = 0; i < 2; i++) await Promise.all([...new Set(tunnels)].map((tunnel) => tunnel.roundTrip()))
}

/** Waits until `condition` is met; a test that waits in vain ends with its timeout. */
export async function until (condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2))
}

export interface Refusal {
  statusCode: number
  code: string
  head: string
}

/** Asks for a tunnel. @returns it, or how it was refused */
export async function askForTunnel (t: Test, app: FastifyInstance, options: TunnelOptions = {}): Promise<Tunnel | Refusal> {
  const { path = '/relay/home', framing = 'wg', protocol, id, key, context, from, reads = true } = options
  const { port } = app.server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: framing === 'raw', localAddress: from })
  t.teardown(() => socket.destroy())
  const headers: Record<string, string> = {}
  if (protocol !== undefined) headers.Upgrade = protocol
  else if (framing !== 'raw') headers['Spanza-Framing'] = framing
  if (id !== undefined) headers['X-Id'] = id
  if (key !== undefined) headers['X-Key'] = key.toString('base64')
  if (context !== undefined) headers['X-Context'] = context
  socket.write(upgradeText(path, { headers }))
  const answer = await readUntil(socket, (bytes) => bytes.includes('\r\n\r\n'))
  const headLength = answer.indexOf('\r\n\r\n') + 4
  const head = answer.toString('latin1', 0, headLength)
  const statusCode = Number(head.slice(9, 12))
  if (statusCode !== 101) {
    const length = Number(/^content-length: (\d+)/im.exec(head)![1])
    socket.unshift(answer.subarray(headLength))
    const body = JSON.parse((await readUntil(socket, (bytes) => bytes.length >= length)).toString()) as { code: string }
    socket.destroy()
    return { statusCode, code: body.code, head }
  }
  const rest = answer.subarray(headLength)
  if (rest.length > 0) socket.unshift(rest)
  return new Tunnel(socket, protocol === 'UoTLV/1' ? len16 : { wg, len16, raw: undefined }[framing], reads)
}

/** A tunnel that the relay must not refuse. */
export async function openTunnel (t: Test, app: FastifyInstance, options: TunnelOptions = {}): Promise<Tunnel> {
  const tunnel = await askForTunnel(t, app, options)
  if (tunnel instanceof Tunnel) return tunnel
  throw new Error(`refused: ${tunnel.statusCode} ${tunnel.code}`)
}

async function readUntil (socket: Socket, isEnough: (bytes: Buffer) => boolean): Promise<Buffer> {
  let bytes = Buffer.alloc(0)
  while (!isEnough(bytes)) {
    const chunk: Buffer | null = socket.read()
    if (chunk === null) await once(socket, 'readable')
    else bytes = Buffer.concat([bytes, chunk])
  }
  return bytes
}
