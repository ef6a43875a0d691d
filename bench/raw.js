import { contest } from './lib/contest.js'
import { load } from './lib/process.js'
import {
  fastifyWebSocket, haproxy, http2, http2Streams, nginxStream, pipe, plugin, proxied, rawTunnels, socat, splice, startAll, stopAll, webSockets, ws
} from './lib/relays.js'
import { Report } from './lib/report.js'

const MESSAGE_SIZE = 64 * 1024

export default async function run () {
  const report = new Report('raw', 'bytes from one bare tunnel into another, as many as get through')
  const relays = await startAll({
    plugin: { start: plugin(), tunnels: rawTunnels },
    'splice(2) in C': { start: splice, tunnels: proxied },
    'socket.pipe': { start: pipe(), tunnels: rawTunnels },
    'HTTP/2 streams': { start: http2(), tunnels: http2Streams },
    HAProxy: { start: haproxy(), tunnels: proxied },
    'nginx stream': { start: nginxStream(), tunnels: proxied },
    socat: { start: socat(), tunnels: proxied },
    'ws, 64 KiB messages': { start: ws(), tunnels: webSockets },
    'ws, corked, 64 KiB messages': { start: ws({ corked: true }), tunnels: webSockets },
    '@fastify/websocket, 64 KiB messages': { start: fastifyWebSocket, tunnels: webSockets }
  }, report)
  const figures = await contest(Object.keys(relays), (name) => measureBytes(relays[name]))
  await stopAll(relays)

  report.ratio('plugin against splice(2): bytes per second', 'megabytes', figures.plugin, figures['splice(2) in C'], { atLeast: 0.9 })
  report.ratio('plugin against splice(2): CPU per GB', 'cpu', figures.plugin, figures['splice(2) in C'], { atMost: 1.6 })
  report.ratio('plugin against socket.pipe: CPU per GB', 'cpu', figures.plugin, figures['socket.pipe'], { atMost: 0.5 })
  report.table('relay', byteColumns, figures)
  report.finish()
}

export const byteColumns = {
  megabytes: ['MB/s', 0],
  cpu: ['CPU s/GB', 3],
  busy: ['relay busy', 2],
  loadBusy: ['load busy', 2]
}

/** One run of as many bytes as get through. */
export async function measureBytes ({ relay, tunnels }, settings = {}) {
  const { bytes, seconds, cpu, loadCpu } = await load('flow', relay, {
    minSize: MESSAGE_SIZE, maxSize: MESSAGE_SIZE, ...settings, ...tunnels(relay)
  })
  return { megabytes: bytes / 1e6 / seconds, cpu: cpu / bytes * 1e9, busy: cpu / seconds, loadBusy: loadCpu / seconds }
}
