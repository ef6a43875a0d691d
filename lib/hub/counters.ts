import { createHistogram, SECONDS, type HistogramData } from './histogram.ts'

/** Why a datagram was dropped. */
export const dropReasons = [
  'too-large', 'empty', 'queue-full', 'peer-closed', 'peer-away', 'no-session', 'no-pending', 'no-responder',
  'mac1-budget', 'initiation-rate', 'index-collision', 'unroutable', 'udp-too-large', 'udp-queue-full', 'udp-error'
] as const

/** Why the relay has dropped a datagram: docs/operating.md says what each means. */
export type DropReason = typeof dropReasons[number]

/** Totals since the hub was created. Plain numbers, because they change with every datagram. */
export interface Counters {
  datagramsIn: number
  datagramsOut: number
  /** Tunnel bytes, including framing. */
  bytesIn: number
  bytesOut: number
  drops: Record<DropReason, number>
  /** Datagrams received from targets, and sent to them. */
  targetDatagramsIn: number
  targetDatagramsOut: number
  /** Network errors of UDP targets, by system error code such as ECONNREFUSED. */
  targetErrors: Record<string, number>
  /** Handshake initiations by destination: to the one peer whose key matches, to all keyless peers, or to none. */
  initiations: { unicast: number, fannedOut: number, unmatched: number }
  /** Repeated handshake failures by cause. Counts how often one was logged and reported to the peer. */
  handshakeFaults: Record<string, number>
  /** Extra datagrams created when an initiation goes to several peers. See `fannedOut`. */
  copies: number
  /**
   * Datagrams that waited for a blocked socket. `depth`: how many were ahead of them.
   * `seconds`: how long the datagrams that were sent had waited.
   */
  queue: { depth: HistogramData, seconds: HistogramData }
  attached: number
  /** Ended tunnels by reason. */
  detached: Record<string, number>
}

/** A queue holds at most 512 datagrams, for at most `writeTimeout`. */
const DEPTHS = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]

export function createCounters (): Counters {
  return {
    datagramsIn: 0,
    datagramsOut: 0,
    bytesIn: 0,
    bytesOut: 0,
    drops: Object.fromEntries(dropReasons.map((reason) => [reason, 0])) as Record<DropReason, number>,
    targetDatagramsIn: 0,
    targetDatagramsOut: 0,
    targetErrors: {},
    initiations: { unicast: 0, fannedOut: 0, unmatched: 0 },
    handshakeFaults: {},
    copies: 0,
    queue: { depth: createHistogram(DEPTHS), seconds: createHistogram(SECONDS) },
    attached: 0,
    detached: {}
  }
}

/** Adds one to a counter. Creates the counter on first use. */
export function countUp (counters: Record<string, number>, key: string): void {
  if (Object.hasOwn(counters, key)) counters[key]!++
  // `defineProperty`, because the key may be an error code from the app, and assigning to `__proto__` would add no key.
  else Object.defineProperty(counters, key, { value: 1, enumerable: true, writable: true, configurable: true })
}
