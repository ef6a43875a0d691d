import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { extendedConnect, spanza, webSocket } from './handshake.js'
import { certificate, certificateKey, NodeRelay, ProxyRelay } from './process.js'
import { folder, hasNginxStream, hasProgram, nginxStreamModule, splicePath } from './programs.js'

// The relays of the benches: how each is started, and how the load generator reaches it. A channel is named anew for
// every run, so that nothing of the run before is in the way.

let channels = 0
export const newChannel = () => `channel-${++channels}`

const tlsFiles = { cert: certificate, key: certificateKey }

/** Bare tunnels of the plugin. */
export const rawTunnels = () => ({
  handshake: spanza(newChannel()),
  background: spanza(newChannel())
})

/** Tunnels of the plugin that carry datagrams, by a framing or as WebSocket messages, with WireGuard sessions between them. */
export const packetTunnels = (source = 'wg', sink = source) => () => {
  const channel = newChannel()
  return {
    source,
    sink,
    handshake: packetTunnel(channel, source),
    sinkHandshake: packetTunnel(channel, sink),
    background: packetTunnel(newChannel(), source),
    hasSessions: true
  }
}

function packetTunnel (channel, framing) {
  return framing === 'websocket' ? webSocket(`/relay/${channel}`) : spanza(channel, framing)
}

/** WebSockets of the relays that only know these. */
export const webSockets = () => ({
  source: 'websocket',
  sink: 'websocket',
  handshake: webSocket(`/relay/${newChannel()}/{peer}`),
  background: webSocket(`/relay/${newChannel()}/{peer}`)
})

export const http2Streams = (relay) => ({
  http2: true,
  handshake: extendedConnect(`/relay/${newChannel()}`, relay.port),
  background: extendedConnect(`/relay/${newChannel()}`, relay.port)
})

export const proxied = () => ({})

/** Relays on Node. */
export const plugin = (options) => () => NodeRelay.start('plugin.js', options)
export const pipe = (options) => () => NodeRelay.start('pipe.js', options)
export const http2 = (options) => () => NodeRelay.start('http2.js', options)
export const ws = (options) => () => NodeRelay.start('ws.js', options)
export const fastifyWebSocket = () => NodeRelay.start('fastify-websocket.js')

/** With this given to one of those above, it speaks TLS. */
export const withTls = { tls: tlsFiles }

/** The floor. */
export const splice = () => ProxyRelay.start((port, sinkPort) => [splicePath, port, sinkPort].map(String))

export const haproxy = ({ isTls = false } = {}) => {
  if (!hasProgram('haproxy')) return
  return () => ProxyRelay.start((port, sinkPort) => {
    const config = join(folder, `haproxy-${port}`)
    const both = join(folder, 'haproxy.pem')
    if (isTls) writeFileSync(both, [certificate, certificateKey].map((path) => readFileSync(path)).join('\n'))
    writeFileSync(config, `
global
  nbthread 1
defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen bench
  bind 127.0.0.1:${port}${isTls ? ` ssl crt ${both}` : ''}
  server sink 127.0.0.1:${sinkPort}${isTls ? ' ssl verify none' : ''}
`)
    return ['haproxy', '-db', '-q', '-f', config]
  })
}

export const nginxStream = ({ isTls = false } = {}) => {
  if (!hasNginxStream()) return
  return () => ProxyRelay.start((port, sinkPort) => {
    const config = join(folder, `nginx-${port}`)
    writeFileSync(config, `
load_module ${nginxStreamModule};
daemon off;
master_process off;
pid ${config}.pid;
error_log /dev/null;
events {}
stream {
  server {
    listen 127.0.0.1:${port}${isTls ? ' ssl' : ''};
    proxy_pass 127.0.0.1:${sinkPort};
    ${isTls ? `ssl_certificate ${certificate}; ssl_certificate_key ${certificateKey}; proxy_ssl on;` : ''}
  }
}
`)
    return ['nginx', '-p', folder, '-e', 'stderr', '-c', config]
  })
}

export const socat = () => {
  if (!hasProgram('socat')) return
  return () => ProxyRelay.start((port, sinkPort) => [
    'socat', '-lf', '/dev/null', `TCP-LISTEN:${port},bind=127.0.0.1,reuseaddr`, `TCP:127.0.0.1:${sinkPort}`
  ], { isStartedAnew: true })
}

/**
 * Starts those that can be had here.
 * @param wanted by name: `{ start, tunnels }`, where `start` is undefined for what is not installed
 * @returns by name: `{ relay, tunnels }`
 */
export async function startAll (wanted, report) {
  const started = {}
  const shared = new Map()
  for (const [name, { start, tunnels }] of Object.entries(wanted)) {
    if (start === undefined) {
      report.note(`Left out, not installed: ${name}.`)
      continue
    }
    if (!shared.has(start)) shared.set(start, await start())
    started[name] = { relay: shared.get(start), tunnels }
  }
  return started
}

export async function stopAll (started) {
  await Promise.all([...new Set(Object.values(started).map(({ relay }) => relay))].map((relay) => relay.stop()))
}
