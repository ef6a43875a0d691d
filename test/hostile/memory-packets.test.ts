import type { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import type { Encoding } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { certificate, checkGrowth, dial, dialHttp2, drip, fill, MeasuredRelay, webSocketHeaders } from '../helpers/measured-relay.ts'
import { wireguardMessage } from '../helpers/datagrams.ts'

t.setTimeout(300_000)

// What tunnels of datagrams make a relay hold whose clients do not read, several at once, so that a fault of each adds up.

const RECEIVERS = 4
/** In MiB: what fills a socket, 256 KiB behind it, and the piece that these end in, for each. A chunk comes to 64 KiB here. */
const FULL_LIMIT = RECEIVERS * 0.6
/** What 512 datagrams and 16 writes of one byte may take for each, in MiB. */
const BYTES_LIMIT = RECEIVERS * 0.6
/** As large as `maxPacketSize`. */
const FULL = Buffer.alloc(2048)
const BYTE = Buffer.from('x')

const webSocketMessage: Pick<Encoding, 'encode' | 'maxOverhead'> = {
  maxOverhead: 8,
  encode (target, offset, source, start, end) {
    const length = end - start
    // Masked with zeros.
    const header = length < 126 ? [0x82, 0x80 | length, 0, 0, 0, 0] : [0x82, 0xfe, length >> 8, length & 0xff, 0, 0, 0, 0]
    target.set(header, offset)
    return offset + header.length + source.copy(target, offset + header.length, start, end)
  }
}

type Open = (t: Test, relay: MeasuredRelay, channel: string, reads: boolean) => Promise<Duplex>

interface Kind { encoding: Pick<Encoding, 'encode' | 'maxOverhead'>, open: Open }

const overHttp1 = (headers: Record<string, string>): Open => async (t, relay, channel) => await dial(t, relay, channel, headers)
const overHttp2 = (headers: Record<string, string>): Open => async (t, relay, channel, reads) => await dialHttp2(t, relay, channel, headers, reads)

const servers: Record<string, { server: object, kinds: Record<string, Kind> }> = {
  'HTTP/1.1': {
    server: {},
    kinds: {
      wg: { encoding: wg, open: overHttp1({ 'Spanza-Framing': 'wg' }) },
      len16: { encoding: len16, open: overHttp1({ 'Spanza-Framing': 'len16' }) },
      'WebSocket messages': { encoding: webSocketMessage, open: overHttp1({ ...webSocketHeaders, 'Sec-WebSocket-Protocol': 'spanza.v1' }) }
    }
  },
  'HTTP/1.1 and TLS': { server: { https: certificate }, kinds: { wg: { encoding: wg, open: overHttp1({ 'Spanza-Framing': 'wg' }) } } },
  'HTTP/2': {
    server: { http2: true },
    kinds: {
      wg: { encoding: wg, open: overHttp2({ 'spanza-framing': 'wg' }) },
      len16: { encoding: len16, open: overHttp2({ 'spanza-framing': 'len16' }) },
      'WebSocket messages': {
        encoding: webSocketMessage,
        open: overHttp2({ ':protocol': 'websocket', 'sec-websocket-version': '13', 'sec-websocket-protocol': 'spanza.v1' })
      }
    }
  }
}

function frame ({ encode, maxOverhead }: Kind['encoding'], ...datagrams: Buffer[]): Buffer {
  return Buffer.concat(datagrams.map((datagram) => {
    const target = Buffer.alloc(datagram.length + maxOverhead)
    return target.subarray(0, encode(target, 0, datagram, 0, datagram.length, false))
  }))
}

interface Sender { stream: Duplex, receiver: Duplex, index: number }

/** Makes each of these known to its receiver, and the other way round, by a handshake. */
async function meet (relay: MeasuredRelay, encoding: Kind['encoding'], senders: Sender[]): Promise<void> {
  const isDone = async (): Promise<boolean> => (await relay.measure()).stats.sessions === 2 * senders.length
  while (!await isDone()) {
    for (const { stream, index } of senders) {
      const initiation = wireguardMessage(1)
      initiation.writeUInt32LE(index, 4)
      stream.write(frame(encoding, initiation))
    }
    for (let i = 0; i < 3; i++) await relay.turn()
    for (const { receiver, index } of senders) {
      // It does not read, but knows what would be there.
      const response = wireguardMessage(2)
      response.writeUInt32LE(index, 4)
      response.writeUInt32LE(index, 8)
      receiver.write(frame(encoding, response))
    }
    for (let i = 0; i < 3; i++) await relay.turn()
  }
}

function transportMessage (index: number, size: number): Buffer {
  const message = wireguardMessage(4, size)
  message.writeUInt32LE(index, 4)
  return message
}

for (const [version, { server, kinds }] of Object.entries(servers)) {
  t.test(`over ${version}`, async (t) => {
    const relay = await MeasuredRelay.start(t, { server })

    for (const [name, { encoding, open }] of Object.entries(kinds)) {
      t.test(`${name}: datagrams of one byte for those that do not read`, async (t) => {
        await relay.empty()
        const senders = []
        for (let i = 0; i < RECEIVERS; i++) {
          senders.push(await open(t, relay, `${i}`, true))
          await open(t, relay, `${i}`, false)
        }
        const before = await relay.measure()
        if (version !== 'HTTP/2') await fill(relay, senders, frame(encoding, FULL))
        await drip(relay, senders, frame(encoding, BYTE), 4000)
        const after = await relay.measure()
        checkGrowth(t, before, after, BYTES_LIMIT)
        t.ok(after.stats.waiting > 0, `${after.stats.waiting} datagrams wait`)
        t.ok(after.stats.drops['queue-full'] > before.stats.drops['queue-full'], 'and more came')
      })

      t.test(`${name}: full and small datagrams of several senders for those that do not read`, async (t) => {
        await relay.empty()
        const senders: Sender[] = []
        for (let i = 0; i < RECEIVERS; i++) {
          const receiver = await open(t, relay, `${i}`, false)
          for (let j = 0; j < 3; j++) senders.push({ stream: await open(t, relay, `${i}`, true), receiver, index: i * 3 + j })
        }
        await meet(relay, encoding, senders)
        const before = await relay.measure()
        // With HTTP/1.1, the system takes some megabytes of it.
        const rounds = version === 'HTTP/2' ? 10 : 40
        for (let round = 0; round < rounds; round++) {
          for (const { stream, index } of senders) {
            stream.write(frame(encoding, ...Array.from({ length: 30 }, (_, k) => transportMessage(index, k % 8 === 0 ? 32 : 2048))))
          }
          await relay.turn()
        }
        const after = await relay.measure()
        checkGrowth(t, before, after, FULL_LIMIT)
        t.ok(after.stats.drops['queue-full'] > before.stats.drops['queue-full'], 'more came than waits')
      })
    }
  })
}
