// How much many idle tunnels cost: `node scripts/many-tunnels.js [tunnels] [--kind packet|stream]`. Opens them
// to a relay in a process of its own, from several loopback addresses, lets 1 % talk in pairs, and prints what a REST
// route answers meanwhile, what each tunnel takes of memory, and what is left when all have gone. Needs the built
// package, and in either process a few more file descriptors than tunnels: `ulimit -n 20000`.

import { connect } from 'node:net'
import { parseArgs } from 'node:util'
import { len16 } from '../dist/framing/len16.js'
import { RelayProcess } from '../test/soak/relay-process.js'
import { RestProber } from '../test/soak/rest-prober.js'
import { until } from '../test/soak/world.js'

const SOURCES = 20
const UNFINISHED = 200
const MEASURE_MS = 10_000
const BUSY_PART = 0.01
const DATAGRAM_SIZE = 1280
const DATAGRAMS_PER_SECOND = 100

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { kind: { type: 'string', default: 'packet' } }
})
const count = Number(positionals[0] ?? 10_000)
const isPacket = values.kind === 'packet'

const many = 1e9
const relay = await RelayProcess.start({
  clock: 1,
  options: { maxPeers: many, maxClientPeers: many, keepaliveTimeout: 600_000, idleTimeout: 0, pairTimeout: 600_000 }
})
const prober = new RestProber(relay.port, (error) => { throw error })
const sockets = new Set()

console.log(`${count} ${values.kind} tunnels, Node ${process.version}`)
await measureRest('warming up')
const before = await relay.ask('memory')
await measureRest('REST without tunnels')

const started = performance.now()
await openAll()
const seconds = (performance.now() - started) / 1000
console.log(`opened in ${seconds.toFixed(1)} s, ${Math.round(count / seconds)} a second; ${(await relay.ask('stats')).peers} peers`)
const beside = await relay.ask('memory')
console.log(`memory of each tunnel: rss ${perTunnel('rss')}, heap ${perTunnel('heapUsed')}, external ${perTunnel('external')} bytes`)
console.log(`  rss ${mib(before.rss)} before, ${mib(beside.rss)} beside them; heap ${mib(before.heapUsed)} and ${mib(beside.heapUsed)}; external ${mib(before.external)} and ${mib(beside.external)}`)
await measureRest('REST beside idle tunnels')

if (isPacket) {
  const busy = talk([...sockets].slice(0, Math.ceil(count * BUSY_PART)))
  await measureRest(`REST beside ${BUSY_PART * 100} % busy`)
  busy.stop()
  console.log(`  ${busy.sent()} datagrams of ${DATAGRAM_SIZE} bytes sent, ${busy.received()} received`)
}

for (const socket of sockets) socket.end()
await until(() => sockets.size === 0, 30_000)
await until(async () => (await relay.ask('tables')).channels === 0, 30_000)
await new Promise((resolve) => setTimeout(resolve, 2000)) // empty channels are swept every second
const after = await relay.ask('memory')
const tables = await relay.ask('tables')
console.log(`closed: rss ${mib(after.rss)}, heap ${mib(after.heapUsed)}, external ${mib(after.external)}, fds ${tables.fds}, ${JSON.stringify(tables.resources)}, live objects ${JSON.stringify(after.objects)}`)
relay.kill()

async function openAll () {
  let opened = 0
  let begun = 0
  await new Promise((resolve, reject) => {
    const next = () => {
      if (begun === count) return
      open(begun++, () => {
        if (++opened === count) resolve()
        else next()
      }, reject)
    }
    for (let i = 0; i < UNFINISHED; i++) next()
  })
}

/** Two tunnels share a packet channel; a stream channel has one, which waits. */
function open (number, onOpen, onError) {
  const channel = isPacket ? Math.floor(number / 2) : number
  const socket = connect({ port: relay.port, host: '127.0.0.1', localAddress: `127.0.0.${2 + number % SOURCES}`, noDelay: true })
  sockets.add(socket)
  socket.on('close', () => sockets.delete(socket))
  socket.on('error', onError)
  socket.once('data', (head) => {
    if (!head.toString('latin1').startsWith('HTTP/1.1 101 ')) return onError(new Error(head.toString()))
    socket.resume()
    onOpen()
  })
  socket.write(`GET /open/${channel} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n` +
    (isPacket ? 'Spanza-Framing: len16\r\n\r\n' : '\r\n'))
}

/** Neighbours, who share a channel, send each other datagrams. */
function talk (busy) {
  const datagram = Buffer.alloc(DATAGRAM_SIZE, 0xff)
  const frame = Buffer.alloc(DATAGRAM_SIZE + len16.maxOverhead)
  len16.encode(frame, 0, datagram, 0, DATAGRAM_SIZE, false)
  let sent = 0
  let bytes = 0
  for (const socket of busy) socket.on('data', (chunk) => { bytes += chunk.length })
  const timer = setInterval(() => {
    for (const socket of busy) socket.write(frame)
    sent += busy.length
  }, 1000 / DATAGRAMS_PER_SECOND)
  return { stop: () => clearInterval(timer), sent: () => sent, received: () => Math.floor(bytes / frame.length) }
}

async function measureRest (what) {
  prober.start()
  await new Promise((resolve) => setTimeout(resolve, MEASURE_MS))
  await prober.stop()
  const { p50, p99, longest } = prober.takeTimes()
  console.log(`${what}: p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms, longest ${longest.toFixed(1)} ms`)
}

function perTunnel (part) {
  return Math.round((beside[part] - before[part]) / count)
}

function mib (bytes) {
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`
}
