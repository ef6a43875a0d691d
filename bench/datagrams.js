import { contest } from './lib/contest.js'
import { load } from './lib/process.js'
import { fastifyWebSocket, packetTunnels, plugin, proxied, rawTunnels, splice, startAll, stopAll, webSockets, ws } from './lib/relays.js'
import { Report } from './lib/report.js'

/** What is sent: mixed sizes are 64 to 1420 bytes, evenly distributed. Without a rate it is as much as gets through. */
const regimes = {
  'mixed sizes, one destination': { minSize: 64, maxSize: 1420 },
  'mixed sizes, eight destinations in turn': { minSize: 64, maxSize: 1420, sinks: 8 },
  '96 bytes, one destination': { minSize: 96, maxSize: 96 },
  '1420 bytes, one destination': { minSize: 1420, maxSize: 1420 },
  'sparse: 20,000 a second, mixed sizes, one destination': { minSize: 64, maxSize: 1420, rate: 20_000 }
}

const start = plugin()

const relays = {
  plugin: { start, tunnels: packetTunnels() },
  'plugin, len16': { start, tunnels: packetTunnels('len16') },
  'plugin, wg to len16': { start, tunnels: packetTunnels('wg', 'len16') },
  'plugin, WebSocket to wg': { start, tunnels: packetTunnels('websocket', 'wg') },
  'plugin, bare tunnels': { start, tunnels: rawTunnels },
  ws: { start: ws(), tunnels: webSockets },
  'ws, corked': { start: ws({ corked: true }), tunnels: webSockets },
  '@fastify/websocket': { start: fastifyWebSocket, tunnels: webSockets },
  'splice(2) in C, bytes': { start: splice, tunnels: proxied }
}

/** Those that only carry bytes have one destination, and no datagrams. */
const onlyBytes = ['plugin, bare tunnels', 'splice(2) in C, bytes']
const onlyFirst = ['plugin, len16', 'plugin, wg to len16', 'plugin, WebSocket to wg']

export default async function run () {
  const report = new Report('datagrams', 'WireGuard datagrams from one peer to others')
  const started = await startAll(relays, report)
  const figures = {}
  for (const [regime, settings] of Object.entries(regimes)) {
    const isFirst = Object.keys(figures).length === 0
    const contenders = Object.keys(started).filter((name) => (isFirst || !onlyFirst.includes(name)) && (!settings.sinks || !onlyBytes.includes(name)))
    figures[regime] = await contest(contenders, (name) => measureDatagrams(started[name], settings))
  }
  await stopAll(started)

  const [mixed, eight, small, large, sparse] = Object.values(figures)
  report.ratio('mixed, one destination: datagrams against ws', 'kpps', mixed.plugin, mixed.ws, { atLeast: 15 })
  report.ratio('mixed, one destination: datagrams against corked ws', 'kpps', mixed.plugin, mixed['ws, corked'], { atLeast: 3 })
  report.ratio('mixed, eight destinations: datagrams against ws', 'kpps', eight.plugin, eight.ws, { atLeast: 12 })
  report.ratio('mixed, eight destinations: datagrams against corked ws', 'kpps', eight.plugin, eight['ws, corked'], { atLeast: 3 })
  report.ratio('96 bytes: datagrams against ws', 'kpps', small.plugin, small.ws)
  report.ratio('1420 bytes: datagrams against ws', 'kpps', large.plugin, large.ws)
  report.ratio('mixed: CPU per byte against its own bare tunnels', 'cpuPerGb', mixed.plugin, mixed['plugin, bare tunnels'], { atMost: 1.2 })
  report.ratio('mixed: CPU of a datagram, wg to len16 against wg to wg', 'cpu', mixed['plugin, wg to len16'], mixed.plugin)
  report.ratio('mixed: CPU of a datagram, WebSocket to wg against wg to wg', 'cpu', mixed['plugin, WebSocket to wg'], mixed.plugin)
  report.ratio('sparse: CPU of a datagram against ws', 'cpu', sparse.plugin, sparse.ws, { atMost: 0.6 })
  for (const [regime, rows] of Object.entries(figures)) report.table(regime, columns, rows)
  report.note('kpps: thousand datagrams delivered in a second. A peer that falls behind loses datagrams, as UDP does: "delivered" is the part that came through.')
  report.finish()
}

const columns = {
  kpps: ['kpps', 0],
  cpu: ['CPU µs each', 3],
  cpuPerGb: ['CPU s/GB', 3],
  delivered: ['delivered', 2],
  busy: ['relay busy', 2],
  loadBusy: ['load busy', 2]
}

async function measureDatagrams ({ relay, tunnels }, settings) {
  const run = { ...settings, ...tunnels(relay) }
  const { datagrams, bytes, sent, seconds, cpu, loadCpu } = await load('flow', relay, run)
  return {
    // Where only bytes are carried, nobody has counted datagrams.
    ...(run.source !== undefined && { kpps: datagrams / 1000 / seconds, cpu: cpu / datagrams * 1e6 }),
    cpuPerGb: cpu / bytes * 1e9,
    delivered: bytes / sent,
    busy: cpu / seconds,
    loadBusy: loadCpu / seconds
  }
}
