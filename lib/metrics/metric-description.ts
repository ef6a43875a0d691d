/** Metrics for Prometheus made from counters, for the relay and for the sidecar. */

export interface MetricValue {
  value: number
  labels: Record<string, string>
  /** Only in a histogram, which consists of several metrics. */
  metricName?: string
}

/** A metric read from counters of type `Stats`. */
export interface MetricDescription<Stats> {
  /** Without the program's common prefix. */
  name: string
  help: string
  type: 'counter' | 'gauge' | 'histogram'
  read: (stats: Stats) => MetricValue[]
}

export function gauge<Stats> (name: string, help: string, read: MetricDescription<Stats>['read']): MetricDescription<Stats> {
  return { name, help, type: 'gauge', read }
}

export function counter<Stats> (name: string, help: string, read: MetricDescription<Stats>['read']): MetricDescription<Stats> {
  return { name, help, type: 'counter', read }
}

/** The value of a metric without labels. */
export function of (value: number): MetricValue[] {
  return [{ value, labels: {} }]
}

/** The values of a metric with one label. */
export function by (label: string, values: Record<string, number>): MetricValue[] {
  return Object.entries(values).map(([key, value]) => ({ value, labels: { [label]: key } }))
}
