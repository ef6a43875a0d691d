import { createHistogram, type HistogramData } from './histogram.ts'

/** Why a datagram went nowhere. */
export const dropReasons = [
  'too-large', 'empty', 'queue-full', 'peer-closed', 'peer-away', 'no-session', 'no-pending', 'no-responder',
  'mac1-budget', 'initiation-rate', 'index-collision', 'unroutable', 'udp-too-large', 'udp-queue-full', 'udp-error'
] as const

/** Why the relay has dropped a datagram: docs/operating.md says what each means. */
export type DropReason = typeof dropReasons[number]

/** Everything a hub counts over its life; plain numbers, because they are counted for every datagram. */
export interface Counters {
  datagramsIn: number
  datagramsOut: number
  /** Bytes of the tunnels, framing included. */
  bytesIn: number
  bytesOut: number
  drops: Record<DropReason, number>
  /** Datagrams that came from targets, and that were sent to them. */
  targetDatagramsIn: number
  targetDatagramsOut: number
  /** What the network has reported of UDP targets, by the system's code, such as ECONNREFUSED. */
  targetErrors: Record<string, number>
  /** Handshake initiations by where they went: to the one peer whose key they name, to all peers without a key, nowhere. */
  initiations: { unicast: number, fannedOut: number, unmatched: number }
  /** Handshakes that came to nothing again and again, by cause: how often that was logged and told to the peer. */
  handshakeFaults: Record<string, number>
  /** Datagrams that were made of one, because it went to several peers: `fannedOut` initiations to more than one. */
  copies: number
  /** Datagrams that had to wait for a blocked socket: how many waited before them, and for how long those waited that left, in seconds. */
  queue: { depth: HistogramData, seconds: HistogramData }
  attached: number
  /** Tunnels that have ended, by reason. */
  detached: Record<string, number>
}

/** A queue holds 512 datagrams at most, and for no longer than `writeTimeout`. */
const DEPTHS = [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

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

/** Adds one to a counter that exists only once it has counted something. */
export function countUp (counters: Record<string, number>, key: string): void {
  if (Object.hasOwn(counters, key)) counters[key]!++
  // Defined, as assigning to `__proto__` would not: the key may be the code of an app's error.
  else Object.defineProperty(counters, key, { value: 1, enumerable: true, writable: true, configurable: true })
}
