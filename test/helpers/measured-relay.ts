import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { HubStats } from '../../lib/index.ts'
import { plainEnvironment } from './program.ts'
import { upgradeText } from './raw-client.ts'
import { serverCertificate } from './relay-app.ts'

/** A relay in a process of its own over the built package, whose memory is measured while its clients do not read. */

const MIB = 1024 * 1024

const immediate = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))

interface Measure { heapUsed: number, arrayBuffers: number, stats: HubStats }

/** What the fixture `measured-relay.js` is given. */
export interface Settings { server?: object, path?: string, options?: object, route?: object, target?: string }

export class MeasuredRelay {
  readonly #child: ChildProcess
  readonly address: AddressInfo | string
  readonly isTls: boolean

  private constructor (child: ChildProcess, address: AddressInfo | string, isTls: boolean) {
    this.#child = child
    this.address = address
    this.isTls = isTls
  }

  static async start (t: Test, settings: Settings = {}): Promise<MeasuredRelay> {
    const script = fileURLToPath(new URL('../fixtures/measured-relay.js', import.meta.url))
    const child = fork(script, [JSON.stringify(settings)], { execArgv: ['--expose-gc'], env: plainEnvironment })
    t.teardown(() => child.kill())
    const [address] = await once(child, 'message') as [AddressInfo | string]
    return new MeasuredRelay(child, address, 'https' in (settings.server ?? {}))
  }

  /** What is not needed any more is collected before. */
  async measure (): Promise<Measure> {
    this.#child.send('measure')
    const [measure] = await once(this.#child, 'message') as [Measure]
    return measure
  }

  /** Gives the relay the time to read what has been sent to it. @returns how many of its sockets have not taken all that was written to them */
  async turn (): Promise<number> {
    this.#child.send('turn')
    const [stuck] = await once(this.#child, 'message') as [number]
    return stuck
  }

  /** Waits until all tunnels have left. */
  async empty (): Promise<void> {
    while ((await this.measure()).stats.peers > 0) await immediate()
  }

  get options (): NetConnectOpts {
    return typeof this.address === 'string' ? { path: this.address } : { port: this.address.port, host: '127.0.0.1' }
  }
}

export const certificate = { key: String(serverCertificate().key), cert: String(serverCertificate().cert) }

/** A connection whose handshake is done, which is not read any further. */
export async function dial (t: Test, relay: MeasuredRelay, channel: string, headers: Record<string, string>, path = `/relay/${channel}`): Promise<Socket> {
  const options = { ...relay.options, noDelay: true }
  const socket = relay.isTls ? connectTls({ ...options, rejectUnauthorized: false }) : connect(options)
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.write(upgradeText(path, { headers }))
  await once(socket, 'readable')
  const head = String(socket.read())
  if (!head.startsWith('HTTP/1.1 101')) throw new Error(head)
  return socket
}

export const webSocketHeaders = { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }

/** A tunnel over HTTP/2 in a session of its own. */
export async function dialHttp2 (t: Test, relay: MeasuredRelay, channel: string, headers: Record<string, string>, reads: boolean): Promise<Duplex> {
  return await openStream(await openSession(t, relay, reads), channel, headers)
}

export async function openSession (t: Test, relay: MeasuredRelay, reads: boolean): Promise<ClientHttp2Session> {
  const options = { ...relay.options, noDelay: true }
  const socket = relay.isTls
    ? connectTls({ ...options, rejectUnauthorized: false, ALPNProtocols: ['h2'] })
    : connect(options)
  const session = connectHttp2('http://localhost', { createConnection: () => socket, settings: reads ? {} : { initialWindowSize: 0 } })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  return session
}

export async function openStream (session: ClientHttp2Session, channel: string, headers: Record<string, string>): Promise<Duplex> {
  const stream = session.request({ ':method': 'CONNECT', ':protocol': 'spanza', ':path': `/relay/${channel}`, ...headers }, { endStream: false })
  stream.on('error', () => {})
  const [{ ':status': status }] = await once(stream, 'response') as [{ ':status': number }]
  if (status !== 200) throw new Error(String(status))
  return stream
}

/**
 * Sends the same again and again, on all of these streams; the relay reads after each time.
 * @param atOnce how often it is sent before the relay is waited for: over TLS each is a record, and in any case comes out on its own
 */
export async function drip (relay: MeasuredRelay, streams: Duplex[], bytes: Buffer, count: number, atOnce = 1): Promise<void> {
  for (let i = 0; i < count; i += atOnce) {
    const open = streams.filter(({ writableNeedDrain }) => !writableNeedDrain)
    if (open.length === 0) return
    for (let j = 0; j < atOnce; j++) {
      for (const stream of open) stream.write(bytes)
      // What is written while a record is on its way to the system becomes one record.
      if (atOnce > 1) await settle(open)
    }
    await relay.turn()
  }
}

/** Waits until the system has taken all that was written, unless it is full. */
async function settle (streams: Duplex[]): Promise<void> {
  for (let i = 0; i < 10 && streams.some(({ writableLength }) => writableLength > 0); i++) await immediate()
}

/** Sends on each of these until the system holds as much as it takes for one that does not read, and hardly more. */
export async function fill (relay: MeasuredRelay, streams: Duplex[], bytes: Buffer): Promise<void> {
  for (const [i, stream] of streams.entries()) {
    for (let stuck = 0; stuck < 20;) {
      const isStuck = await relay.turn() > i
      // Some streams hold what they have been given for a moment in any case.
      stuck = isStuck ? stuck + 1 : 0
      if (!isStuck) stream.write(bytes)
    }
  }
}

export function checkGrowth (t: Test, before: Measure, after: Measure, limit: number): void {
  const [heap, buffers] = [after.heapUsed - before.heapUsed, after.arrayBuffers - before.arrayBuffers].map((bytes) => bytes / MIB) as [number, number]
  t.ok(heap < limit, `${heap.toFixed(1)} MiB of heap`)
  t.ok(buffers < limit, `${buffers.toFixed(1)} MiB of array buffers`)
}
