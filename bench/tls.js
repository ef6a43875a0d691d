import { contest } from './lib/contest.js'
import { haproxy, http2, http2Streams, nginxStream, pipe, plugin, proxied, rawTunnels, startAll, stopAll, withTls } from './lib/relays.js'
import { Report } from './lib/report.js'
import { byteColumns, measureBytes } from './raw.js'

export default async function run () {
  const report = new Report('tls', 'bytes from one bare tunnel into another, TLS on both sides')
  const relays = await startAll({
    plugin: { start: plugin(withTls), tunnels: rawTunnels },
    'socket.pipe': { start: pipe(withTls), tunnels: rawTunnels },
    'HTTP/2 streams': { start: http2(withTls), tunnels: http2Streams },
    HAProxy: { start: haproxy({ isTls: true }), tunnels: proxied },
    'nginx stream': { start: nginxStream({ isTls: true }), tunnels: proxied }
  }, report)
  const figures = await contest(Object.keys(relays), (name) => measureBytes(relays[name], { tls: true, sinkTls: true }))
  await stopAll(relays)

  report.ratio('CPU per GB against socket.pipe', 'cpu', figures.plugin, figures['socket.pipe'])
  if (figures.HAProxy) report.ratio('CPU per GB against HAProxy', 'cpu', figures.plugin, figures.HAProxy)
  report.table('relay', byteColumns, figures)
  report.finish()
}
