import t from 'tap'
// @ts-expect-error has no types
import parsePrometheusTextFormat from 'parse-prometheus-text-format'
import { Counter, Registry } from 'prom-client'
import type { FastifyInstance } from 'fastify'
import { proxyProtocol } from '../../lib/entrance/proxy-protocol/proxy-protocol.ts'
import { dropReasons } from '../../lib/hub/counters.ts'
import { relayMetrics } from '../../lib/metrics/index.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { askForUpgrade, openBare, startApp } from '../helpers/relay-app.ts'
import { startRelay } from '../helpers/relay.ts'
import { openTunnel, settle, until } from '../helpers/tunnel.ts'
import { initiation, transportData } from '../helpers/wireguard-messages.ts'
import { openWebSocket } from '../helpers/websocket.ts'

interface Family {
  name: string
  help: string
  type: string
  metrics: Array<{ value?: string, labels?: Record<string, string>, buckets?: Record<string, string>, count?: string, sum?: string }>
}

/** What a scrape brings, by the name of the family. */
async function scrape (register: Registry): Promise<Record<string, Family>> {
  const families: Family[] = parsePrometheusTextFormat(await register.metrics())
  return Object.fromEntries(families.map((family) => [family.name.replace('spanza_relay_', ''), family]))
}

/** The values of a family, by the value of one label. */
function valuesOf ({ metrics }: Family, label: string): Record<string, number> {
  return Object.fromEntries(metrics.map(({ labels, value }) => [labels![label]!, Number(value)]))
}

function valueOf ({ metrics }: Family): number {
  return Number(metrics[0]!.value)
}

function measure (app: FastifyInstance): () => Promise<Record<string, Family>> {
  const register = new Registry()
  relayMetrics(app.relayHub, register)
  return async () => await scrape(register)
}

t.test('are there before anything has happened, in a registry that has others', async (t) => {
  const app = await startRelay(t)
  const register = new Registry()
  const own = new Counter({ name: 'own_total', help: 'of the app', registers: [register] })
  own.inc()
  relayMetrics(app.relayHub, register)
  const families = await scrape(register)
  t.equal(valueOf(families['own_total']!), 1)
  t.same(Object.entries(families).filter(([name]) => name !== 'own_total').map(([name, { type }]) => `${type} ${name}`), [
    'GAUGE peers', 'COUNTER tunnels_total', 'GAUGE channels', 'COUNTER closed_tunnels_total', 'COUNTER refused_handshakes_total',
    'COUNTER refused_connections_total', 'HISTOGRAM handshake_duration_seconds', 'COUNTER datagrams_total', 'COUNTER bytes_total', 'COUNTER datagram_copies_total',
    'COUNTER dropped_datagrams_total', 'GAUGE waiting_datagrams', 'HISTOGRAM queue_depth', 'HISTOGRAM queue_wait_seconds',
    'COUNTER initiations_total', 'COUNTER handshake_faults_total', 'GAUGE sessions', 'COUNTER target_datagrams_total', 'COUNTER target_errors_total'
  ])
  t.same(Object.keys(valuesOf(families['dropped_datagrams_total']!, 'reason')), dropReasons, 'each reason, from the beginning')
  t.throws(() => relayMetrics(app.relayHub, register), /already been registered/)
})

t.test('tunnels by route, protocol, framing and version of HTTP', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay/:network')
    app.relay('/guarded', { onRequest: async (_request, reply) => await reply.code(401).send() })
  })
  const read = measure(app)
  await openTunnel(t, app, { path: '/relay/a' })
  const left = await openTunnel(t, app, { path: '/relay/b', framing: 'len16' })
  await openWebSocket(t, app, '/relay/a')
  await openBare(t, app, '/relay/s')
  left.socket.end()
  await until(() => app.relayHub.stats().peers === 3)
  await askForUpgrade(t, app, '/guarded')
  await askForUpgrade(t, app, '/relay/x', { headers: { Upgrade: 'h2c' } })
  const { peers, tunnels_total: tunnels, closed_tunnels_total: closed, refused_handshakes_total: refused, handshake_duration_seconds: duration } = await read()
  const labels = (framing: string, protocol = 'spanza') => ({ route: '/relay/:network', protocol, framing, http_version: '1.1' })
  t.same(peers!.metrics, [
    { value: '1', labels: labels('wg') }, { value: '0', labels: labels('len16') },
    { value: '1', labels: labels('websocket', 'websocket') }, { value: '1', labels: labels('raw') }
  ])
  t.same(tunnels!.metrics.map(({ value }) => value), ['1', '1', '1', '1'])
  t.same(valuesOf(closed!, 'reason'), { ended: 1 })
  t.same(valuesOf(refused!, 'code'), { 401: 1, FST_RELAY_PROTOCOL: 1 })
  t.equal(duration!.metrics[0]!.count, '6')
  t.equal(duration!.metrics[0]!.buckets!['+Inf'], '6')
})

t.test('connections that were refused for want of a PROXY header', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), { server: { serverFactory: proxyProtocol({ from: ['127.0.0.1'] }) } })
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay'))
  await client.closed
  const { refused_connections_total: refused } = await measure(app)()
  t.same(valuesOf(refused!, 'reason'), { 'not-a-proxy': 0, 'no-header': 1, malformed: 0, incomplete: 0, timeout: 0, 'unknown-client': 0 })
})

t.test('what came in has gone out, was dropped or waits', async (t) => {
  const app = await startRelay(t)
  const read = measure(app)
  const [a, b, c] = [await openTunnel(t, app), await openTunnel(t, app), await openTunnel(t, app)]
  const blocked = await openTunnel(t, app, { path: '/relay/blocked', reads: false })
  const flooding = await openTunnel(t, app, { path: '/relay/blocked' })
  // One to two peers without a key, one for a session that is not there, one that is no WireGuard.
  a.send(initiation(1), transportData(5, 100), Buffer.from('not for three'))
  await settle(a, b, c)
  while (app.relayHub.stats().drops['queue-full'] === 0) {
    flooding.send(...Array.from({ length: 50 }, () => transportData(1, 1400)))
    await settle(flooding)
  }
  const balance = async (): Promise<Record<string, number>> => {
    const families = await read()
    const datagrams = valuesOf(families['datagrams_total']!, 'direction')
    const dropped = Object.values(valuesOf(families['dropped_datagrams_total']!, 'reason')).reduce((sum, count) => sum + count)
    const [copies, waiting] = [valueOf(families['datagram_copies_total']!), valueOf(families['waiting_datagrams']!)]
    t.equal(datagrams['in']! + copies, datagrams['out']! + dropped + waiting)
    t.same(valuesOf(families['initiations_total']!, 'result'), { unicast: 0, fanned_out: 1, unmatched: 0 })
    return { copies, waiting, depths: Number(families['queue_depth']!.metrics[0]!.count), waited: Number(families['queue_wait_seconds']!.metrics[0]!.count) }
  }
  const before = await balance()
  t.match(before, { copies: 1, waited: 0 })
  t.ok(before['waiting']! > 0 && before['depths']! > before['waiting']!)
  blocked.read()
  await until(() => app.relayHub.stats().waiting === 0)
  t.match(await balance(), { waiting: 0, waited: before['waiting'] })
})
