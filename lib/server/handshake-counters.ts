import { createHistogram, SECONDS, type HistogramData } from '../hub/histogram.ts'

/** Counts the handshakes of a server since it started. */
export interface HandshakeCounters {
  /** Time from the request to its response, in seconds, for accepted and refused handshakes. */
  handshakeSeconds: HistogramData
  /** Refused handshakes, by the relay's error code. A refusal by a hook of the app counts by its status. */
  refused: Record<string, number>
}

export function createHandshakeCounters (): HandshakeCounters {
  return { handshakeSeconds: createHistogram(SECONDS), refused: {} }
}
