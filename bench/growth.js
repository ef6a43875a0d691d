import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { blake2s } from '@noble/hashes/blake2.js'
import { contest } from './lib/contest.js'
import { spanza } from './lib/handshake.js'
import { load, openFiles, OpenTunnels } from './lib/process.js'
import { plugin } from './lib/relays.js'
import { Report } from './lib/report.js'

/** How many share the channel of the two that talk. */
const crowds = [2, 100, 1000, 10_000]
const CHANNELS_OF_TWO = 5000

const knownKeys = [2, 10, 100, 1000]
/** What one channel tests in a second is limited: this stays below. */
const MAX_TESTS = 1500
const MAX_INITIATIONS = 100

export default async function run () {
  const report = new Report('growth', 'what a datagram and a handshake initiation cost when there are many peers')
  const datagrams = await measureDatagrams(report)
  const initiations = await measureInitiations()
  const [two, ...others] = Object.keys(datagrams)
  for (const row of others) {
    report.ratio(`CPU of a datagram: ${row} against ${two}`, 'cpu', datagrams[row], datagrams[two], { atMost: 1.3 })
  }
  report.table('two that talk', { kpps: ['kpps', 0], cpu: ['CPU µs each', 3] }, datagrams)
  report.table('peers with known keys', { cpu: ['CPU µs of an initiation for the last', 1] }, initiations)
  report.finish()
}

/** Two talk, mixed sizes, as much as gets through, among others that are idle. */
async function measureDatagrams (report) {
  const settings = { handshake: spanza('talk', 'wg'), source: 'wg', sink: 'wg', hasSessions: true, warmUp: 0.3 }
  const idle = Object.fromEntries(crowds.map((size) => [`${size} peers in the channel`, { count: size - 2, handshake: spanza('talk', 'wg') }]))
  idle[`${CHANNELS_OF_TWO} channels of two`] = { count: 2 * (CHANNELS_OF_TWO - 1), handshake: spanza('idle-{pair}', 'wg') }
  const relays = {}
  for (const [row, { count, handshake }] of Object.entries(idle)) {
    if (count > openFiles() - 100) {
      report.note(`Left out, ulimit -n is too low: ${row}.`)
      continue
    }
    const relay = await plugin()()
    relays[row] = { relay, tunnels: await OpenTunnels.open(relay, { handshake, count }) }
  }
  const figures = await contest(Object.keys(relays), async (row) => {
    const { datagrams, seconds, cpu } = await load('flow', relays[row].relay, settings)
    return { kpps: datagrams / 1000 / seconds, cpu: cpu / datagrams * 1e6 }
  })
  await Promise.all(Object.values(relays).flatMap(({ relay, tunnels }) => [tunnels.close(), relay.stop()]))
  return figures
}

/** Initiations for the peer whose key is tested last. */
async function measureInitiations () {
  const relays = {}
  for (const count of knownKeys) {
    const relay = await plugin()()
    const handshake = spanza('keys', 'wg').replace('\r\n\r\n', '\r\nX-Peer: {peer}\r\n\r\n')
    relays[count] = { relay, tunnels: await OpenTunnels.open(relay, { handshake, count, concurrency: 1 }) }
  }
  const figures = await contest(Object.keys(relays), async (row) => {
    const count = Math.min(MAX_INITIATIONS, Math.floor(MAX_TESTS / row))
    const { relay } = relays[row]
    const socket = await openTunnel(relay)
    const frames = [...Array(count)].map((_, i) => initiation(i, row - 1))
    await sleep(400) // the budget of tests is full again: others have had their turns meanwhile
    const before = await relay.cpu()
    socket.write(Buffer.concat([...frames, ping]))
    await once(socket, 'data') // all have been routed
    const cpu = await relay.cpu() - before
    socket.destroy()
    return { cpu: cpu / count * 1e6 }
  })
  await Promise.all(Object.values(relays).flatMap(({ relay, tunnels }) => [tunnels.close(), relay.stop()]))
  return figures
}

const ping = Buffer.from('800000080000000000000000', 'hex')

async function openTunnel (relay) {
  const socket = connect(relay.port, '127.0.0.1')
  socket.write(spanza('keys', 'wg'))
  await once(socket, 'data')
  return socket
}

function initiation (senderIndex, peer) {
  const message = Buffer.alloc(148)
  message[0] = 1
  message.writeUInt32LE(senderIndex, 4)
  const publicKey = createHash('sha256').update(String(peer)).digest()
  const key = blake2s(Buffer.concat([Buffer.from('mac1----'), publicKey]))
  message.set(blake2s(message.subarray(0, 116), { key, dkLen: 16 }), 116)
  return message
}
