import t, { type Test } from 'tap'
// @ts-expect-error has no types
import parsePrometheusTextFormat from 'parse-prometheus-text-format'
import { sidecarMetrics } from '../../lib/cli/sidecar-metrics.ts'
import { UdpSidecar } from '../../lib/client/index.ts'
import { closeReasons } from '../../lib/tunnel/close-reasons.ts'
import { wg } from '../../lib/framing/wg.ts'
import { fakeRelay, refuse } from '../helpers/fake-relay.ts'
import { until } from '../helpers/tunnel.ts'
import { udpPeer } from '../helpers/udp-peer.ts'

interface Family {
  name: string
  type: string
  help: string
  metrics: Array<{ value: string, labels?: Record<string, string> }>
}

function parse (sidecar: UdpSidecar): Family[] {
  return parsePrometheusTextFormat(sidecarMetrics(sidecar.stats))
}

/** The values of each family, by label where there is one. */
function valuesOf (sidecar: UdpSidecar): Record<string, Record<string, number>> {
  return Object.fromEntries(parse(sidecar).map(({ name, metrics }) => [
    name.replace('spanza_sidecar_', ''),
    Object.fromEntries(metrics.map(({ labels = {}, value }) => [Object.values(labels)[0] ?? '', Number(value)]))
  ]))
}

function sum (values: Record<string, number>): number {
  return Object.values(values).reduce((total, value) => total + value)
}

async function startSidecar (t: Test, url: string, forward?: string): Promise<UdpSidecar> {
  const sidecar = new UdpSidecar({ url, listen: '127.0.0.1:0', ...(forward === undefined ? {} : { forward }) })
  t.teardown(() => sidecar.close())
  return sidecar
}

t.test('are there before anything has happened', async (t) => {
  const sidecar = new UdpSidecar({ url: 'https://relay.example.com/' })
  const families = parse(sidecar)
  t.same(families.map(({ name, type }) => `${type} ${name}`), [
    'GAUGE spanza_sidecar_connected', 'COUNTER spanza_sidecar_connections_total', 'COUNTER spanza_sidecar_closed_connections_total',
    'COUNTER spanza_sidecar_failed_attempts_total', 'COUNTER spanza_sidecar_datagrams_total', 'COUNTER spanza_sidecar_bytes_total',
    'COUNTER spanza_sidecar_udp_datagrams_total', 'COUNTER spanza_sidecar_dropped_datagrams_total'
  ])
  t.ok(families.every(({ help }) => help.endsWith('.')))
  t.match(valuesOf(sidecar), {
    connected: { '': 0 },
    connections_total: { '': 0 },
    datagrams_total: { in: 0, out: 0 },
    udp_datagrams_total: { in: 0, out: 0 },
    dropped_datagrams_total: Object.fromEntries(Object.keys(sidecar.stats.drops).map((reason) => [reason, 0]))
  })
})

t.test('connections, how they ended, and attempts that failed', async (t) => {
  const relay = await fakeRelay(t, { answers: [refuse('503 Full')] })
  const sidecar = await startSidecar(t, relay.url)
  await sidecar.start()
  const first = await relay.tunnels.next()
  await until(() => sidecar.stats.connected)
  t.match(valuesOf(sidecar), { connected: { '': 1 }, connections_total: { '': 1 }, failed_attempts_total: { 503: 1 }, closed_connections_total: {} })
  first.socket.end(wg.closing(closeReasons.shutdown.code, '')!)
  await until(() => !sidecar.stats.connected)
  const second = await relay.tunnels.next()
  await until(() => sidecar.stats.connected)
  second.socket.write(wg.drain(0)!)
  await relay.tunnels.next()
  await until(() => sidecar.stats.connected)
  await sidecar.close()
  t.match(valuesOf(sidecar), {
    connected: { '': 0 }, connections_total: { '': 3 }, closed_connections_total: { shutdown: 1, drained: 1, closed: 1 }
  })
})

t.test('an attempt that got no answer is counted by its error code', async (t) => {
  const sidecar = await startSidecar(t, 'http://127.0.0.1:1/')
  const retry = new Promise((resolve) => sidecar.once('retry', resolve))
  await sidecar.start()
  await retry
  t.match(valuesOf(sidecar), { failed_attempts_total: { FST_RELAY_CONNECT: 1 } })
})

t.test('what came in on either side has gone out on the other, or was dropped', async (t) => {
  const relay = await fakeRelay(t)
  const sidecar = await startSidecar(t, relay.url)
  const address = await sidecar.start()
  const tunnel = await relay.tunnels.next()
  tunnel.send(Buffer.from('to nobody yet'))
  await until(() => sidecar.stats.drops['no-return-address'] === 1)
  const peer = (await udpPeer(t)).to(address)
  for (const text of ['out', 'and out']) await peer.send(text)
  await tunnel.datagrams.take(2)
  // The second one is larger than UDP takes.
  tunnel.send(Buffer.from('in'), Buffer.alloc(65535), Buffer.from('in again'))
  await peer.received.take(2)
  await until(() => sidecar.stats.drops['udp-too-large'] === 1 && sidecar.stats.udpDatagramsOut === 2)
  const values = valuesOf(sidecar)
  t.match(values, {
    datagrams_total: { in: 4, out: 2 },
    bytes_total: { in: 13 + 2 + 65535 + 8, out: 10 },
    udp_datagrams_total: { in: 2, out: 2 },
    dropped_datagrams_total: { 'no-return-address': 1, 'udp-too-large': 1 }
  })
  t.equal(values['datagrams_total']!['in']! + values['udp_datagrams_total']!['in']!,
    values['datagrams_total']!['out']! + values['udp_datagrams_total']!['out']! + sum(values['dropped_datagrams_total']!))
})

t.test('a datagram that is dropped as it comes has come', async (t) => {
  const { stats } = new UdpSidecar({ url: 'https://relay.example.com/' })
  const text = sidecarMetrics({ ...stats, drops: { ...stats.drops, 'received-too-large': 1, 'not-loopback': 2 } })
  t.match(text, 'spanza_sidecar_datagrams_total{direction="in"} 1\n')
  t.match(text, 'spanza_sidecar_udp_datagrams_total{direction="in"} 2\n')
})

t.test('a label’s value may hold anything', async (t) => {
  const { stats } = new UdpSidecar({ url: 'https://relay.example.com/' })
  const code = 'a "quoted" \\ code\n'
  const families: Family[] = parsePrometheusTextFormat(sidecarMetrics({ ...stats, failed: { [code]: 1 } }))
  t.same(families.find(({ name }) => name.includes('failed'))!.metrics, [{ value: '1', labels: { code } }])
})
