import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import {
  certificate, checkGrowth, dial, dialHttp2, drip, fill, MeasuredRelay, openSession, openStream, webSocketHeaders, type Settings
} from '../helpers/measured-relay.ts'

t.setTimeout(300_000)

// What clients that do not read can make a relay hold, measured in a process of its own over the built package.

/** What one stuck tunnel may make the relay hold, in MiB: its own share, that of a pair that is busy, and what the process varies by. */
const LIMIT = 4

type Dial = (t: Test, relay: MeasuredRelay, channel: string, reads: boolean) => Promise<Duplex>

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
  'a unix socket': { dial: raw, byte: PLAIN_BYTE, count: 4000, atOnce: 1, settings: { path: join(tmpdir(), `memory-${process.pid}.sock`) } },
  'a WebSocket': { dial: rawWebSocket, byte: MESSAGE_BYTE, count: 15_000, atOnce: 32, settings: {} },
  'a WebSocket over TLS': { dial: rawWebSocket, byte: MESSAGE_BYTE, count: 15_000, atOnce: 32, settings: { server: { https: certificate } } }
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

for (const [name, { dial, byte, count, atOnce, settings }] of Object.entries(kinds)) {
  t.test(`single bytes on a raw tunnel over ${name}, for one that does not read, beside a pair that is busy`, async (t) => {
    const relay = await MeasuredRelay.start(t, settings)
    const a = await dial(t, relay, 'stuck', true)
    await dial(t, relay, 'stuck', false)
    const [c, d] = [await dial(t, relay, 'busy', true), await dial(t, relay, 'busy', true)]
    const block = Buffer.alloc(4096)
    const full = byte === MESSAGE_BYTE ? Buffer.concat([Buffer.from([0x82, 0xfe, 16, 0, 0, 0, 0, 0]), block]) : block
    const large = Buffer.concat(Array.from({ length: 256 }, () => full))
    const before = await relay.measure()
    await fill(relay, [a], full)
    const stop = keepBusy(t, c, d, large)
    await drip(relay, [a], byte, count, atOnce)
    stop()
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })
}

for (const [name, server] of Object.entries({ 'HTTP/2': { http2: true }, 'HTTP/2 over TLS': { http2: true, https: certificate } })) {
  t.test(`single bytes between much else on one connection of ${name}`, async (t) => {
    const relay = await MeasuredRelay.start(t, { server })
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
    const relay = await MeasuredRelay.start(t, { server })
    const a = await dial(t, relay, 'stuck', true)
    await dial(t, relay, 'stuck', false)
    const pong = Buffer.concat([Buffer.from([0x8a, 0xfd, 0, 0, 0, 0]), Buffer.alloc(125)])
    const before = await relay.measure()
    if (name === 'HTTP/1.1') await fill(relay, [a], Buffer.concat([Buffer.from([0x82, 0xfe, 16, 0, 0, 0, 0, 0]), Buffer.alloc(4096)]))
    await drip(relay, [a], Buffer.concat([MESSAGE_BYTE, ...Array.from({ length: 200 }, () => pong)]), 1500, 1)
    checkGrowth(t, before, await relay.measure(), LIMIT)
  })
}
