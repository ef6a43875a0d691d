import { contest } from './lib/contest.js'
import { load } from './lib/process.js'
import { fastifyWebSocket, packetTunnels, plugin, proxied, rawTunnels, splice, startAll, stopAll, webSockets, ws } from './lib/relays.js'
import { Report } from './lib/report.js'

const BYTES_PER_SECOND = 30e6
const MEAN_SIZE = (64 + 1420) / 2

const regimes = {
  alone: {},
  'beside 30 MB/s of datagrams between two others, 20 at a time': { rate: BYTES_PER_SECOND / MEAN_SIZE, burst: 20 }
}

export default async function run () {
  const report = new Report('latency', 'round trip of a datagram of 128 bytes to another peer and of one back')
  const start = plugin()
  const relays = await startAll({
    plugin: { start, tunnels: packetTunnels() },
    'plugin, bare tunnels': { start, tunnels: rawTunnels },
    ws: { start: ws(), tunnels: webSockets },
    'ws, corked': { start: ws({ corked: true }), tunnels: webSockets },
    '@fastify/websocket': { start: fastifyWebSocket, tunnels: webSockets },
    'splice(2) in C': { start: splice, tunnels: proxied }
  }, report)
  const figures = {}
  for (const [regime, settings] of Object.entries(regimes)) {
    figures[regime] = await contest(Object.keys(relays), (name) => measureLatency(relays[name], settings))
  }
  await stopAll(relays)

  const [alone, beside] = Object.values(figures)
  report.ratio('alone: p50 against ws', 'p50', alone.plugin, alone.ws)
  report.ratio('alone: p99 against ws', 'p99', alone.plugin, alone.ws)
  report.ratio('beside other traffic: p50 against ws', 'p50', beside.plugin, beside.ws)
  report.ratio('beside other traffic: p99 against ws', 'p99', beside.plugin, beside.ws, { atMost: 0.5 })
  for (const [regime, rows] of Object.entries(figures)) report.table(regime, columns, rows)
  report.note('In µs, through the relay twice; one datagram is under way at a time.')
  report.finish()
}

const columns = {
  p50: ['p50', 0],
  p99: ['p99', 0],
  p999: ['p99.9', 0],
  background: ['other MB/s', 1]
}

async function measureLatency ({ relay, tunnels }, settings) {
  const { p50, p99, p999, background, seconds } = await load('latency', relay, { seconds: 0.7, ...settings, ...tunnels(relay) })
  return { p50, p99, p999, background: background / 1e6 / seconds }
}
