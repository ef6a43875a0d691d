import { createHistogram, type HistogramData } from '../hub/histogram.ts'

/** What a server counts of handshakes over its life. */
export interface HandshakeCounters {
  /** From the request to its answer, in seconds, whether it became a tunnel or not. */
  handshakeSeconds: HistogramData
  /** Handshakes that were refused, by error code, or by status where a hook of the app refused. */
  refused: Record<string, number>
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export function createHandshakeCounters (): HandshakeCounters {
  return { handshakeSeconds: createHistogram(SECONDS), refused: {} }
}
