import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { HubStats } from '../../lib/index.ts'
import { plainEnvironment } from '../helpers/program.ts'
import { upgradeText } from '../helpers/raw-client.ts'
import { serverCertificate } from '../helpers/relay-app.ts'

t.setTimeout(300_000)

// What clients that do not read can make a relay hold, measured in a process of its own over the built package.

const MIB = 1024 * 1024
/** What one stuck tunnel may make the relay hold, in MiB: its own share, that of a pair that is busy, and what the process varies by. */
const LIMIT = 4

interface Measure { heapUsed: number, arrayBuffers: number, stats: HubStats, waiting: number }

interface Settings { server?: object, path?: string, options?: object, route?: object }

class Relay {
  readonly #child: ChildProcess
  readonly address: AddressInfo | string
  readonly isTls: boolean

  private constructor (child: ChildProcess, address: AddressInfo | string, isTls: boolean) {
    this.#child = child
    this.address = address
    this.isTls = isTls
  }

  static async start (t: Test, settings: Settings = {}): Promise<Relay> {
    const script = fileURLToPath(new URL('../fixtures/measured-relay.js', import.meta.url))
    const child = fork(script, [JSON.stringify(settings)], { execArgv: ['--expose-gc'], env: plainEnvironment })
    t.teardown(() => child.kill())
    const [address] = await once(child, 'message') as [AddressInfo | string]
    return new Relay(child, address, 'https' in (settings.server ?? {}))
  }

  /** @param isExact whether what is not needed any more is collected before */
  async measure (isExact = true): Promise<Measure> {
    this.#child.send(isExact)
    const [measure] = await once(this.#child, 'message') as [Measure]
    return measure
  }

  /** Gives the relay the time to read what has been sent to it. */
  async turn (): Promise<void> {
    this.#child.send('turn')
    await once(this.#child, 'message')
  }

  get options (): NetConnectOpts {
    return typeof this.address === 'string' ? { path: this.address } : { port: this.address.port, host: '127.0.0.1' }
  }
}

const certificate = { key: String(serverCertificate().key), cert: String(serverCertificate().cert) }

/** A connection whose handshake is done, which is not read any further. */
async function dial (t: Test, relay: Relay, channel: string, headers: Record<string, string>): Promise<Socket> {
  const options = { ...relay.options, noDelay: true }
  const socket = relay.isTls ? connectTls({ ...options, rejectUnauthorized: false }) : connect(options)
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  socket.write(upgradeText(`/relay/${channel}`, { headers }))
  await once(socket, 'readable')
  const head = String(socket.read())
  if (!head.startsWith('HTTP/1.1 101')) throw new Error(head)
  return socket
}

const webSocketHeaders = { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }

/** A tunnel over HTTP/2 in a session of its own. */
async function dialHttp2 (t: Test, relay: Relay, channel: string, headers: Record<string, string>, reads: boolean): Promise<Duplex> {
  return await openStream(await openSession(t, relay, reads), channel, headers)
}

async function openSession (t: Test, relay: Relay, reads: boolean): Promise<ClientHttp2Session> {
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

async function openStream (session: ClientHttp2Session, channel: string, headers: Record<string, string>): Promise<Duplex> {
  const stream = session.request({ ':method': 'CONNECT', ':protocol': 'spanza', ':path': `/relay/${channel}`, ...headers }, { endStream: false })
  stream.on('error', () => {})
  const [{ ':status': status }] = await once(stream, 'response') as [{ ':status': number }]
  if (status !== 200) throw new Error(String(status))
  return stream
}

type Dial = (t: Test, relay: Relay, channel: string, reads: boolean) => Promise<Duplex>

/** One byte, as it is sent on a tunnel of this kind. */
const PLAIN_BYTE = Buffer.from('x')
/** A masked binary message of one byte. */
const MESSAGE_BYTE = Buffer.from([0x82, 0x81, 0, 0, 0, 0, 120])

/** `atOnce`: so many bytes are sent at once that each comes out of the tunnel on its own all the same. */
interface Kind { dial: Dial, byte: Buffer, count: number, atOnce: number, settings: Settings }

const raw: Dial = async (t, relay, channel) => await dial(t, relay, channel, {})
const rawWebSocket: Dial = async (t, relay, channel) => await dial(t, relay, channel, { ...webSocketHeaders, 'Sec-WebSocket-Protocol': 'spanza.raw.v1' })
const rawHttp2: Dial = async (t, relay, channel, reads) => await dialHttp2(t, relay, channel, {}, reads)
const rawWebSocketHttp2: Dial = async (t, relay, channel, reads) => await dialHttp2(t, relay, channel, {
  ':protocol': 'websocket', 'sec-websocket-version': '13', 'sec-websocket-protocol': 'spanza.raw.v1'
}, reads)

const kinds: Record<string, Kind> = {
  TCP: { dial: raw, byte: PLAIN_BYTE, count: 4000, atOnce: 1, settings: {} },
  TLS: { dial: raw, byte: PLAIN_BYTE, count: 15_000, atOnce: 32, settings: { server: { https: certificate } } },
  'a unix socket': { dial: raw, byte: PLAIN_BYTE, count: 4000, atOnce: 1, settings: { path: join(tmpdir(), `memory-${process.pid}.sock`) } },
  'a WebSocket': { dial: rawWebSocket, byte: MESSAGE_BYTE, count: 15_000, atOnce: 32, settings: {} },
  'a WebSocket over TLS': { dial: rawWebSocket, byte: MESSAGE_BYTE, count: 15_000, atOnce: 32, settings: { server: { https: certificate } } }
}

const immediate = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))

/** Sends the same again and again; the relay reads after each time. */
async function drip (relay: Relay, stream: Duplex, bytes: Buffer, count: number, atOnce: number): Promise<void> {
  for (let i = 0; i < count && !stream.writableNeedDrain; i += atOnce) {
    // Not corked: over TLS, each is a record of its own.
    for (let j = 0; j < atOnce; j++) stream.write(bytes)
    await relay.turn()
  }
}

/** Sends until the system holds as much as it takes for one that does not read, and hardly more. */
async function fill (relay: Relay, stream: Duplex, bytes: Buffer): Promise<void> {
  for (let stuck = 0; stuck < 20;) {
    const isStuck = (await relay.measure(false)).waiting > 0
    // Some streams hold what they have been given for a moment in any case.
    stuck = isStuck ? stuck + 1 : 0
    if (!isStuck) stream.write(bytes)
    await immediate()
  }
}

/** Moves data between two others, of whom one reads too slowly: large writes to it are taken in parts. */
function keepBusy (t: Test, from: Duplex, to: Duplex, bytes: Buffer): () => void {
  to.on('readable', () => {})
  const timer = setInterval(() => {
    if (from.writableLength === 0) from.write(bytes)
    to.read()
  }, 1)
  t.teardown(() => clearInterval(timer))
  return () => clearInterval(timer)
}

function checkGrowth (t: Test, before: Measure, after: Measure, limit: number): void {
  const [heap, buffers] = [after.heapUsed - before.heapUsed, after.arrayBuffers - before.arrayBuffers].map((bytes) => bytes / MIB) as [number, number]
  t.ok(heap < limit, `${heap.toFixed(1)} MiB of heap`)
  t.ok(buffers < limit, `${buffers.toFixed(1)} MiB of array buffers`)
}

for (const [name, { dial, byte, count, atOnce, settings }] of Object.entries(kinds)) {
  t.test(`single bytes on a raw tunnel over ${name}, for one that does not read, beside a pair that is busy`, async (t) => {
    const relay = await Relay.start(t, settings)
    const a = await dial(t, relay, 'stuck', true)
    await dial(t, relay, 'stuck', false)
    const [c, d] = [await dial(t, relay, 'busy', true), await dial(t, relay, 'busy', true)]
    const block = Buffer.alloc(4096)
    const full = byte === MESSAGE_BYTE ? Buffer.concat([Buffer.from([0x82, 0xfe, 16, 0, 0, 0, 0, 0]), block]) : block
    const large = Buffer.concat(Array.from({ length: 256 }, () => full))
    const before = await relay.measure()
    await fill(relay, a, full)
    const stop = keepBusy(t, c, d, large)
    await drip(relay, a, byte, count, atOnce)
    stop()
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })
}

for (const [name, server] of Object.entries({ 'HTTP/2': { http2: true }, 'HTTP/2 over TLS': { http2: true, https: certificate } })) {
  t.test(`single bytes between much else on one connection of ${name}`, async (t) => {
    const relay = await Relay.start(t, { server })
    const session = await openSession(t, relay, true)
    const a = await openStream(session, 'stuck', {})
    await rawHttp2(t, relay, 'stuck', false)
    const c = await openStream(session, 'busy', {})
    const d = await rawHttp2(t, relay, 'busy', true)
    d.resume()
    const block = Buffer.alloc(16_000)
    const before = await relay.measure()
    for (let i = 0; i < 2000; i++) {
      a.write('x')
      if (!c.write(block)) await once(c, 'drain')
    }
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })
}

for (const [name, { dial, server }] of Object.entries({
  'HTTP/1.1': { dial: rawWebSocket, server: {} },
  'HTTP/2': { dial: rawWebSocketHttp2, server: { http2: true } }
})) {
  t.test(`WebSocket messages of one byte over ${name}, between much that is not passed on`, async (t) => {
    const relay = await Relay.start(t, { server })
    const a = await dial(t, relay, 'stuck', true)
    await dial(t, relay, 'stuck', false)
    const pong = Buffer.concat([Buffer.from([0x8a, 0xfd, 0, 0, 0, 0]), Buffer.alloc(125)])
    const before = await relay.measure()
    if (name === 'HTTP/1.1') await fill(relay, a, Buffer.concat([Buffer.from([0x82, 0xfe, 16, 0, 0, 0, 0, 0]), Buffer.alloc(4096)]))
    await drip(relay, a, Buffer.concat([MESSAGE_BYTE, ...Array.from({ length: 200 }, () => pong)]), 1500, 1)
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })
}
