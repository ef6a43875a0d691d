/** Counts observed values by size. Plain numbers keep observing cheap. */
export interface HistogramData {
  /** Upper bounds of the buckets, ascending. One more bucket holds larger values. */
  readonly bounds: readonly number[]
  /** Values in each bucket, not cumulative. */
  readonly counts: number[]
  sum: number
}

/** Bounds for durations, in seconds: 1 ms to 30 s. */
export const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

export function createHistogram (bounds: readonly number[]): HistogramData {
  return { bounds, counts: new Array<number>(bounds.length + 1).fill(0), sum: 0 }
}

/** @param times how many times the value was observed */
export function observe (histogram: HistogramData, value: number, times = 1): void {
  const { bounds, counts } = histogram
  let bucket = 0
  while (bucket < bounds.length && value > bounds[bucket]!) bucket++
  counts[bucket]! += times
  histogram.sum += value * times
}
