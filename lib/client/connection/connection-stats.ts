/**
 * Why a datagram was dropped. When sending: `too-large` (for the relay), `empty`, `queue-full` (the socket has been blocked
 * for long), `closed`. When receiving: `received-too-large` (above `maxPacketSize`), `no-listener` (nothing listens to
 * `message`).
 */
export type ConnectionDropReason =
  'too-large' | 'empty' | 'queue-full' | 'closed' | 'received-too-large' | 'no-listener'

/** Counters of a connection; bytes are those of the datagrams, without framing. */
export interface ConnectionStats {
  datagramsIn: number
  datagramsOut: number
  bytesIn: number
  bytesOut: number
  drops: Record<ConnectionDropReason, number>
}

/** The counters of a connection that has carried nothing yet. */
export function noConnectionStats (): ConnectionStats {
  return {
    datagramsIn: 0,
    datagramsOut: 0,
    bytesIn: 0,
    bytesOut: 0,
    drops: {
      'too-large': 0,
      empty: 0,
      'queue-full': 0,
      closed: 0,
      'received-too-large': 0,
      'no-listener': 0
    }
  }
}
