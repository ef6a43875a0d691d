import { contest } from './lib/contest.js'
import { extendedConnect, webSocket } from './lib/handshake.js'
import { load, OpenTunnels } from './lib/process.js'
import { fastifyWebSocket, newChannel, packetTunnels, plugin, startAll, stopAll, webSockets } from './lib/relays.js'
import { Report } from './lib/report.js'

const IDLE = 500
const SPARSE = 20_000

export default async function run () {
  const report = new Report('websocket', 'WebSockets of the plugin over HTTP/1.1 and HTTP/2, beside its tunnels without WebSocket')
  const http1 = plugin()
  const http2 = plugin({ http2: true })
  const relays = await startAll({
    'wg over HTTP/1.1': { start: http1, tunnels: packetTunnels() },
    'WebSocket over HTTP/1.1': { start: http1, tunnels: packetTunnels('websocket') },
    'wg over HTTP/2': { start: http2, tunnels: http2Tunnels('spanza', ['spanza-framing wg']) },
    'WebSocket over HTTP/2': { start: http2, tunnels: http2Tunnels('websocket', ['sec-websocket-version 13']) },
    '@fastify/websocket over HTTP/1.1': { start: fastifyWebSocket, tunnels: webSockets }
  }, report)
  const names = Object.keys(relays)
  const latency = await contest(names, async (name) => {
    const { p50, p99, cpu, roundTrips } = await measure('latency', relays[name])
    return { p50, p99, cpu: cpu / roundTrips / 2 * 1e6 }
  })
  const sparse = await contest(names, async (name) => datagrams(await measure('flow', relays[name], { rate: SPARSE })))
  const saturated = await contest(names, async (name) => datagrams(await measure('flow', relays[name])))
  await stopAll(relays)
  const idle = await contest(['WebSocket over HTTP/1.1', 'WebSocket over HTTP/2'], (name) => measureIdle(name.endsWith('2')), { warmUp: false })

  compare(report, 'round trip alone: p50', 'p50', latency)
  compare(report, 'round trip alone: CPU of a message', 'cpu', latency)
  compare(report, 'sparse: CPU of a message', 'cpu', sparse)
  compare(report, 'saturated: CPU of a message', 'cpu', saturated)
  report.ratio('memory, HTTP/2 against HTTP/1.1', 'rss', idle['WebSocket over HTTP/2'], idle['WebSocket over HTTP/1.1'])
  report.table('round trip of 128 bytes, one at a time', { p50: ['p50 µs', 0], p99: ['p99 µs', 0], cpu: ['CPU µs a message', 2] }, latency)
  report.table(`sparse: ${SPARSE} a second, 64 to 1420 bytes`, columns, sparse)
  report.table('saturated, 64 to 1420 bytes', columns, saturated)
  report.table(`idle, ${IDLE} of them`, { rss: ['resident bytes each', 0], heap: ['heap bytes each', 0] }, idle)
  report.note('Over HTTP/2, each tunnel has a session of its own.')
  report.finish()
}

const columns = { kpps: ['kpps', 1], cpu: ['CPU µs a message', 3] }

function compare (report, text, figure, figures) {
  report.ratio(`${text}, WebSocket: HTTP/2 against HTTP/1.1`, figure, figures['WebSocket over HTTP/2'], figures['WebSocket over HTTP/1.1'], { atMost: 2 })
  report.ratio(`${text}, HTTP/1.1: WebSocket against wg`, figure, figures['WebSocket over HTTP/1.1'], figures['wg over HTTP/1.1'])
}

function measure (mode, { relay, tunnels }, settings) {
  return load(mode, relay, { ...settings, ...tunnels(relay) })
}

function datagrams ({ datagrams, seconds, cpu }) {
  return { kpps: datagrams / 1000 / seconds, cpu: cpu / datagrams * 1e6 }
}

function http2Tunnels (protocol, headers) {
  const framing = protocol === 'websocket' ? 'websocket' : 'wg'
  return ({ port }) => ({
    source: framing, sink: framing, http2: true, handshake: extendedConnect(`/relay/${newChannel()}`, port, protocol, headers), hasSessions: true
  })
}

/** Two in each channel, in a process of their own. */
async function measureIdle (isHttp2) {
  const relay = await plugin({ http2: isHttp2 })()
  const handshake = isHttp2 ? extendedConnect('/relay/{pair}', relay.port, 'websocket', ['sec-websocket-version 13']) : webSocket('/relay/{pair}')
  const open = (prefix) => OpenTunnels.open(relay, { http2: isHttp2, handshake: handshake.replace('/relay/', `/relay/${prefix}`), count: IDLE })
  const first = await open('a')
  const before = await relay.memory()
  const second = await open('b')
  const beside = await relay.memory()
  await Promise.all([first.close(), second.close()])
  await relay.stop()
  return { rss: (beside.rss - before.rss) / IDLE, heap: (beside.heap - before.heap) / IDLE }
}
