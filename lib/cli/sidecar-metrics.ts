import type { SidecarStats } from '../client/sidecar/sidecar-stats.ts'
import { by, counter, gauge, of, type MetricDescription, type MetricValue } from '../metrics/metric-description.ts'

/**
 * A sidecar's counters in Prometheus' text format, with the names and labels that a hub's have. It is written by hand: the format
 * is two comments and a line for each value, and users of the command have no prom-client.
 */

const PREFIX = 'spanza_sidecar_'

/** The exposition format's version that every Prometheus reads. */
export const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

const descriptions: Array<MetricDescription<SidecarStats>> = [
  gauge('connected', 'Whether there is a connection to the relay.', ({ connected }) => of(Number(connected))),
  counter('connections_total', 'Connections to the relay that were made.', ({ connections }) => of(connections)),
  counter('closed_connections_total', 'Connections that have ended, by reason.', ({ ended }) => by('reason', ended)),
  counter('failed_attempts_total', 'Attempts to connect that made no connection, by the status that was answered, or the error code.',
    ({ failed }) => by('code', failed)),
  counter('datagrams_total', 'Datagrams that came from the relay, and that were sent to it.',
    ({ datagramsIn, datagramsOut, drops }) => by('direction', { in: datagramsIn + drops['received-too-large'], out: datagramsOut })),
  counter('bytes_total', 'Bytes of these datagrams, without framing.', ({ bytesIn, bytesOut }) => by('direction', { in: bytesIn, out: bytesOut })),
  counter('udp_datagrams_total', 'Datagrams that came to the UDP port, and that were sent from it.',
    ({ udpDatagramsIn, udpDatagramsOut, drops }) => by('direction', { in: udpDatagramsIn + drops['not-loopback'], out: udpDatagramsOut })),
  counter('dropped_datagrams_total', 'Datagrams that went nowhere, by reason.', ({ drops }) => by('reason', drops))
]

/** The answer to a scrape. */
export function sidecarMetrics (stats: SidecarStats): string {
  return descriptions.map(({ name, help, type, read }) => {
    const lines = read(stats).map(({ labels, value }) => `${PREFIX}${name}${labelText(labels)} ${value}\n`)
    return `# HELP ${PREFIX}${name} ${help}\n# TYPE ${PREFIX}${name} ${type}\n${lines.join('')}`
  }).join('')
}

/** JSON escapes quotes, backslashes and line ends in the same way as this format. */
function labelText (labels: MetricValue['labels']): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}=${JSON.stringify(value)}`)
  return pairs.length === 0 ? '' : `{${pairs.join()}}`
}
