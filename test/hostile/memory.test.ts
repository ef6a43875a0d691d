import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
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
async function dialHttp2 (t: Test, relay: Relay, channel: string, headers: Record<string, string>): Promise<Duplex> {
  const { port } = relay.address as AddressInfo
  const session = connectHttp2(`${relay.isTls ? 'https' : 'http'}://127.0.0.1:${port}`, { rejectUnauthorized: false })
  session.on('error', () => {})
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  const stream = session.request({ ':method': 'CONNECT', ':protocol': 'spanza', ':path': `/relay/${channel}`, ...headers }, { endStream: false })
  stream.on('error', () => {})
  const [{ ':status': status }] = await once(stream, 'response') as [{ ':status': number }]
  if (status !== 200) throw new Error(String(status))
  stream.pause()
  return stream
}

type Dial = (t: Test, relay: Relay, channel: string) => Promise<Duplex>

/** One byte, as it is sent on a tunnel of this kind. */
const PLAIN_BYTE = Buffer.from('x')
/** A masked binary message of one byte. */
const MESSAGE_BYTE = Buffer.from([0x82, 0x81, 0, 0, 0, 0, 120])

interface Kind { dial: Dial, byte: Buffer, settings: Settings }

const raw: Dial = async (t, relay, channel) => await dial(t, relay, channel, {})
const rawWebSocket: Dial = async (t, relay, channel) => await dial(t, relay, channel, { ...webSocketHeaders, 'Sec-WebSocket-Protocol': 'spanza.raw.v1' })
const rawHttp2: Dial = async (t, relay, channel) => await dialHttp2(t, relay, channel, {})

const kinds: Record<string, Kind> = {
  TCP: { dial: raw, byte: PLAIN_BYTE, settings: {} },
  TLS: { dial: raw, byte: PLAIN_BYTE, settings: { server: { https: certificate } } },
  'a unix socket': { dial: raw, byte: PLAIN_BYTE, settings: { path: join(tmpdir(), `memory-${process.pid}.sock`) } },
  'HTTP/2': { dial: rawHttp2, byte: PLAIN_BYTE, settings: { server: { http2: true } } },
  'HTTP/2 over TLS': { dial: rawHttp2, byte: PLAIN_BYTE, settings: { server: { http2: true, https: certificate } } },
  'a WebSocket': { dial: rawWebSocket, byte: MESSAGE_BYTE, settings: {} },
  'a WebSocket over TLS': { dial: rawWebSocket, byte: MESSAGE_BYTE, settings: { server: { https: certificate } } }
}

/** Sends the same again and again, as packets of their own as far as the system lets it. */
async function drip (stream: Duplex, bytes: Buffer, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    stream.write(bytes)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/** Sends until the system holds as much as it takes for one that does not read, and hardly more. */
async function fill (relay: Relay, stream: Duplex, bytes: Buffer): Promise<void> {
  while ((await relay.measure(false)).waiting === 0) {
    stream.write(bytes)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

function checkGrowth (t: Test, before: Measure, after: Measure, limit: number): void {
  const [heap, buffers] = [after.heapUsed - before.heapUsed, after.arrayBuffers - before.arrayBuffers].map((bytes) => bytes / MIB) as [number, number]
  t.ok(heap < limit, `${heap.toFixed(1)} MiB of heap`)
  t.ok(buffers < limit, `${buffers.toFixed(1)} MiB of array buffers`)
}

for (const [name, { dial, byte, settings }] of Object.entries(kinds)) {
  t.test(`single bytes on a raw tunnel over ${name}, for one that does not read, beside a pair that is busy`, async (t) => {
    const relay = await Relay.start(t, settings)
    const a = await dial(t, relay, 'stuck')
    await dial(t, relay, 'stuck')
    const [c, d] = [await dial(t, relay, 'busy'), await dial(t, relay, 'busy')]
    d.resume()
    const block = Buffer.alloc(4096)
    const full = byte === MESSAGE_BYTE ? Buffer.concat([Buffer.from([0x82, 0xfe, 16, 0, 0, 0, 0, 0]), block]) : block
    const large = Buffer.concat(Array.from({ length: 64 }, () => full))
    c.write(large)
    const before = await relay.measure()
    if (name.startsWith('HTTP/2')) a.write(Buffer.alloc(65_535))
    else await fill(relay, a, full)
    const busy = setInterval(() => {
      if (c.writableLength === 0) c.write(large)
    }, 1)
    t.teardown(() => clearInterval(busy))
    await drip(a, byte, 3000)
    clearInterval(busy)
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })
}
