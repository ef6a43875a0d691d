import { createHistogram, type HistogramData } from '../hub/histogram.ts'

/** Counts the handshakes of a server since it started. */
export interface HandshakeCounters {
  /** Time from the request to its response, in seconds, for accepted and refused handshakes. */
  handshakeSeconds: HistogramData
  /** Refused handshakes, by the relay's error code. A refusal by a hook of the app counts by its status. */
  refused: Record<string, number>
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export function createHandshakeCounters (): HandshakeCounters {
  return { handshakeSeconds: createHistogram(SECONDS), refused: {} }
}
