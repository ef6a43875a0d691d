import type { Metric, Registry } from 'prom-client'
import type { HistogramData } from '../hub/histogram.ts'
import type { HubStats, RelayHub } from '../server/relay-hub.ts'
import { by, counter, gauge, of, type MetricDescription, type MetricValue } from './metric-description.ts'

/** A hub's counters as metrics for Prometheus, in a prom-client registry of the app. */

const PREFIX = 'spanza_relay_'

const descriptions: Array<MetricDescription<HubStats>> = [
  gauge('peers', 'Tunnels attached now.', ({ tunnels }) => tunnels.map((count) => ({ value: count.peers, labels: labelsOf(count) }))),
  counter('tunnels_total', 'Tunnels attached since the start.', ({ tunnels }) => tunnels.map((count) => ({ value: count.attached, labels: labelsOf(count) }))),
  gauge('channels', 'Non-empty channels.', ({ channels }) => of(channels)),
  counter('closed_tunnels_total', 'Tunnels that ended, by reason.', ({ detached }) => by('reason', detached)),
  counter('refused_handshakes_total', "Refused handshakes, by the relay's error code, or by status where a hook of the app refused.",
    ({ refused }) => by('code', refused)),
  counter('refused_connections_total', 'Connections refused before their first request because of their PROXY header, by reason.',
    ({ refusedConnections }) => by('reason', refusedConnections)),
  histogram('handshake_duration_seconds', 'From the request to its answer, whether it became a tunnel or not.', ({ handshakeSeconds }) => handshakeSeconds),
  counter('datagrams_total', 'Datagrams received from peers, and sent to peers.',
    ({ datagramsIn, datagramsOut }) => by('direction', { in: datagramsIn, out: datagramsOut })),
  counter('bytes_total', 'Bytes of the tunnels, framing included.', ({ bytesIn, bytesOut }) => by('direction', { in: bytesIn, out: bytesOut })),
  counter('datagram_copies_total', 'Extra copies of datagrams that went to several peers.', ({ copies }) => of(copies)),
  counter('dropped_datagrams_total', 'Datagrams dropped, by reason.', ({ drops }) => by('reason', drops)),
  gauge('waiting_datagrams', 'Datagrams waiting for blocked sockets.', ({ waiting }) => of(waiting)),
  histogram('queue_depth', 'How many datagrams waited ahead of one that had to wait.', ({ queue }) => queue.depth),
  histogram('queue_wait_seconds', 'How long datagrams waited that had to wait and were sent.', ({ queue }) => queue.seconds),
  counter('initiations_total', 'WireGuard handshake initiations, by where they went.',
    ({ initiations: { unicast, fannedOut, unmatched } }) => by('result', { unicast, fanned_out: fannedOut, unmatched })),
  counter('handshake_faults_total', 'Reports that handshakes of a peer kept failing, by cause.',
    ({ handshakeFaults }) => by('fault', handshakeFaults)),
  gauge('sessions', 'Known WireGuard sessions, counted once for each side.', ({ sessions }) => of(sessions)),
  counter('target_datagrams_total', 'Datagrams received from targets, and sent to targets.',
    ({ targetDatagramsIn, targetDatagramsOut }) => by('direction', { in: targetDatagramsIn, out: targetDatagramsOut })),
  counter('target_errors_total', "Errors that the network reported for UDP targets, by the system's code.", ({ targetErrors }) => by('code', targetErrors))
]

/**
 * Adds the metrics of a hub to a registry. All names begin with `spanza_relay_`. They are read when the registry is scraped,
 * and cost nothing in between. No label holds a peer's id or an address; `route` is a route's URL pattern or `scope`.
 * @throws Error if the registry already has metrics of these names: it holds those of one hub only
 */
export function relayMetrics (hub: Pick<RelayHub, 'stats'>, register: Registry): void {
  let stats: HubStats | undefined
  const statsNow = (): HubStats => {
    if (stats === undefined) {
      stats = hub.stats()
      // A registry reads all its metrics in one turn of the event loop.
      queueMicrotask(() => { stats = undefined })
    }
    return stats
  }
  for (const { name, read, ...rest } of descriptions) {
    const description = { name: PREFIX + name, aggregator: 'sum', ...rest }
    const metric = { ...description, get: () => ({ ...description, values: read(statsNow()) }), reset () {} }
    // A registry calls only these members. Its type asks for prom-client's classes, which keep counts of their own.
    register.registerMetric(metric as unknown as Metric)
  }
}

function histogram (name: string, help: string, read: (stats: HubStats) => HistogramData): MetricDescription<HubStats> {
  return { name, help, type: 'histogram', read: (stats) => valuesOf(PREFIX + name, read(stats)) }
}

function labelsOf ({ scope, protocol, framing, httpVersion }: HubStats['tunnels'][number]): MetricValue['labels'] {
  return { route: scope, protocol, framing, http_version: httpVersion }
}

/** Prometheus counts cumulatively: each bucket includes those below it. */
function valuesOf (name: string, { bounds, counts, sum }: HistogramData): MetricValue[] {
  let count = 0
  const buckets = counts.map((inBucket, index) => {
    count += inBucket
    return { metricName: `${name}_bucket`, value: count, labels: { le: index < bounds.length ? String(bounds[index]) : '+Inf' } }
  })
  return [...buckets, { metricName: `${name}_sum`, value: sum, labels: {} }, { metricName: `${name}_count`, value: count, labels: {} }]
}
