import type { Metric, Registry } from 'prom-client'
import type { HistogramData } from '../hub/histogram.ts'
import type { HubStats, RelayHub } from '../server/relay-hub.ts'
import { by, counter, gauge, of, type MetricDescription, type MetricValue } from './metric-description.ts'

/** A hub's counters as metrics for Prometheus, in a registry of prom-client's that the app has. */

const PREFIX = 'spanza_relay_'

const descriptions: Array<MetricDescription<HubStats>> = [
  gauge('peers', 'Tunnels that are attached now.', ({ tunnels }) => tunnels.map((count) => ({ value: count.peers, labels: labelsOf(count) }))),
  counter('tunnels_total', 'Tunnels that were attached.', ({ tunnels }) => tunnels.map((count) => ({ value: count.attached, labels: labelsOf(count) }))),
  gauge('channels', 'Channels in which there is somebody.', ({ channels }) => of(channels)),
  counter('closed_tunnels_total', 'Tunnels that have ended, by reason.', ({ detached }) => by('reason', detached)),
  counter('refused_handshakes_total', "Handshakes that were refused, by the relay's error code, or the status where a hook of the app refused.",
    ({ refused }) => by('code', refused)),
  counter('refused_connections_total', 'Connections that were refused before they could send a request, for want of a PROXY header, by reason.',
    ({ refusedConnections }) => by('reason', refusedConnections)),
  histogram('handshake_duration_seconds', 'From the request to its answer, whether it became a tunnel or not.', ({ handshakeSeconds }) => handshakeSeconds),
  counter('datagrams_total', 'Datagrams that came from peers, and that were sent to peers.',
    ({ datagramsIn, datagramsOut }) => by('direction', { in: datagramsIn, out: datagramsOut })),
  counter('bytes_total', 'Bytes of the tunnels, framing included.', ({ bytesIn, bytesOut }) => by('direction', { in: bytesIn, out: bytesOut })),
  counter('datagram_copies_total', 'Datagrams that were made of one, because it went to several peers.', ({ copies }) => of(copies)),
  counter('dropped_datagrams_total', 'Datagrams that went nowhere, by reason.', ({ drops }) => by('reason', drops)),
  gauge('waiting_datagrams', 'Datagrams that wait for blocked sockets.', ({ waiting }) => of(waiting)),
  histogram('queue_depth', 'How many datagrams waited before one that had to wait.', ({ queue }) => queue.depth),
  histogram('queue_wait_seconds', 'How long datagrams that had to wait, and were sent, have waited.', ({ queue }) => queue.seconds),
  counter('initiations_total', "WireGuard's handshake initiations, by where they went.",
    ({ initiations: { unicast, fannedOut, unmatched } }) => by('result', { unicast, fanned_out: fannedOut, unmatched })),
  counter('handshake_faults_total', 'Times that handshakes of a peer had come to nothing again and again, by cause.',
    ({ handshakeFaults }) => by('fault', handshakeFaults)),
  gauge('sessions', 'WireGuard sessions that are known, each once for either side.', ({ sessions }) => of(sessions)),
  counter('target_datagrams_total', 'Datagrams that came from targets, and that were sent to targets.',
    ({ targetDatagramsIn, targetDatagramsOut }) => by('direction', { in: targetDatagramsIn, out: targetDatagramsOut })),
  counter('target_errors_total', "What the network has reported of UDP targets, by the system's code.", ({ targetErrors }) => by('code', targetErrors))
]

/**
 * Adds the metrics of a hub, all of which begin with `spanza_relay_`, to a registry: they are read when it is scraped, and
 * cost nothing in between. No label ever holds a peer's id or an address; `route` is a route's URL pattern, or its `scope`.
 * @throws Error when the registry has metrics of these names already: it can hold those of one hub
 */
export function relayMetrics (hub: Pick<RelayHub, 'stats'>, register: Registry): void {
  let stats: HubStats | undefined
  const statsNow = (): HubStats => {
    if (stats === undefined) {
      stats = hub.stats()
      // A registry asks all its metrics in one go.
      queueMicrotask(() => { stats = undefined })
    }
    return stats
  }
  for (const { name, read, ...rest } of descriptions) {
    const description = { name: PREFIX + name, aggregator: 'sum', ...rest }
    const metric = { ...description, get: () => ({ ...description, values: read(statsNow()) }), reset () {} }
    // What a registry calls; its type names the classes of prom-client, which count by themselves.
    register.registerMetric(metric as unknown as Metric)
  }
}

function histogram (name: string, help: string, read: (stats: HubStats) => HistogramData): MetricDescription<HubStats> {
  return { name, help, type: 'histogram', read: (stats) => valuesOf(PREFIX + name, read(stats)) }
}

function labelsOf ({ scope, protocol, framing, httpVersion }: HubStats['tunnels'][number]): MetricValue['labels'] {
  return { route: scope, protocol, framing, http_version: httpVersion }
}

/** As Prometheus wants it: each bucket holds those below it, too. */
function valuesOf (name: string, { bounds, counts, sum }: HistogramData): MetricValue[] {
  let count = 0
  const buckets = counts.map((inBucket, index) => {
    count += inBucket
    return { metricName: `${name}_bucket`, value: count, labels: { le: index < bounds.length ? String(bounds[index]) : '+Inf' } }
  })
  return [...buckets, { metricName: `${name}_sum`, value: sum, labels: {} }, { metricName: `${name}_count`, value: count, labels: {} }]
}
