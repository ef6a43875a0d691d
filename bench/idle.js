import { contest } from './lib/contest.js'
import { spanza, webSocket } from './lib/handshake.js'
import { openFiles, OpenTunnels } from './lib/process.js'
import { fastifyWebSocket, plugin, ws } from './lib/relays.js'
import { Report } from './lib/report.js'

/** Opened before the first look at the memory: what Node takes for itself has been taken by then. */
const BEFORE = 2000
const MEASURED = 8000
const CONCURRENCY = 100

const webSocketHandshake = webSocket('/relay/channel-{pair}/{peer}')

/** Each of them holds two tunnels in a channel; a bare one waits. */
const contenders = {
  plugin: { start: plugin(), handshake: spanza('channel-{pair}', 'wg') },
  'plugin, bare tunnels that wait': { start: plugin({ options: { pairTimeout: 600_000 } }), handshake: spanza('channel-{peer}') },
  ws: { start: ws(), handshake: webSocketHandshake },
  '@fastify/websocket': { start: fastifyWebSocket, handshake: webSocketHandshake }
}

export default async function run () {
  const report = new Report('idle', `memory of a tunnel where nothing happens, from ${BEFORE} to ${BEFORE + MEASURED}; handshakes in a second`)
  const measured = Math.min(MEASURED, openFiles() - BEFORE - 100)
  if (measured < MEASURED) report.note(`Only to ${BEFORE + measured}: ulimit -n says no more.`)
  const figures = await contest(Object.keys(contenders), (name) => measure(contenders[name], measured), { warmUp: false })

  report.ratio('memory of a tunnel against @fastify/websocket', 'rss', figures.plugin, figures['@fastify/websocket'], { atMost: 0.6 })
  report.ratio('handshakes per second against @fastify/websocket', 'rate', figures.plugin, figures['@fastify/websocket'], { atLeast: 1.5 })
  report.ratio('CPU of a handshake against @fastify/websocket', 'cpu', figures.plugin, figures['@fastify/websocket'])
  report.table('relay', {
    rss: ['resident bytes each', 0],
    heap: ['heap bytes each', 0],
    rate: ['handshakes/s', 0],
    cpu: ['CPU µs each', 1]
  }, figures)
  report.finish()
}

/** In a process of its own for each run. */
async function measure ({ start, handshake }, count) {
  const relay = await start()
  const first = await OpenTunnels.open(relay, { handshake: handshake.replaceAll('channel', 'first'), count: BEFORE, concurrency: CONCURRENCY })
  const before = await relay.memory()
  const tunnels = await OpenTunnels.open(relay, { handshake, count, concurrency: CONCURRENCY })
  const beside = await relay.memory()
  await relay.stop() // before the tunnels close: it need not see them off
  await Promise.all([first.close(), tunnels.close()])
  const { seconds, cpu } = tunnels.opened
  return { rss: (beside.rss - before.rss) / count, heap: (beside.heap - before.heap) / count, rate: count / seconds, cpu: cpu / count * 1e6 }
}
