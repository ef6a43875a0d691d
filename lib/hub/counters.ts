/** Why a datagram went nowhere. */
export const dropReasons = [
  'too-large', 'empty', 'queue-full', 'peer-closed', 'peer-away', 'no-session', 'no-pending', 'no-responder',
  'mac1-budget', 'initiation-rate', 'index-collision', 'unroutable', 'udp-too-large', 'udp-queue-full', 'udp-error'
] as const

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
  attached: number
  /** Tunnels that have ended, by reason. */
  detached: Record<string, number>
  /** Handshakes that were refused, by error code, or by status where a hook of the app refused. */
  refused: Record<string, number>
}

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
    attached: 0,
    detached: {},
    refused: {}
  }
}

/** Adds one to a counter that exists only once it has counted something. */
export function countUp (counters: Record<string, number>, key: string): void {
  counters[key] = (counters[key] ?? 0) + 1
}
