import type { SidecarStats } from '../client/sidecar/sidecar-stats.ts'

/** The traffic between two readings of a sidecar's counters. */
export interface Traffic {
  /** Milliseconds between the readings. */
  duration: number
  datagramsIn: number
  datagramsOut: number
  bytesIn: number
  bytesOut: number
  drops: number
  /** Drops by reason, without reasons that did not occur. */
  dropsByReason: Array<[reason: string, count: number]>
}

/**
 * Reports the traffic since the last time, again and again.
 * @param interval milliseconds between two reports
 * @returns a function that stops it
 */
export function watchTraffic (sidecar: { stats: SidecarStats }, interval: number, tell: (passed: Traffic, stats: SidecarStats) => void): () => void {
  let before = sidecar.stats
  let since = performance.now()
  const timer = setInterval(() => {
    const { stats } = sidecar
    const now = performance.now()
    tell({
      duration: now - since,
      datagramsIn: stats.datagramsIn - before.datagramsIn,
      datagramsOut: stats.datagramsOut - before.datagramsOut,
      bytesIn: stats.bytesIn - before.bytesIn,
      bytesOut: stats.bytesOut - before.bytesOut,
      drops: dropsOf(stats) - dropsOf(before),
      dropsByReason: newDrops(before, stats)
    }, stats)
    before = stats
    since = now
  }, interval)
  return () => clearInterval(timer)
}

/** The line for a terminal: the current traffic. */
export function liveText ({ duration, ...passed }: Traffic, stats: SidecarStats): string {
  const dropped = `${dropsOf(stats)} dropped`
  if (!stats.connected) return `Not connected | ${dropped}`
  const rates = (bytes: number, datagrams: number) =>
    `${formatBytes(bytes * 1000 / duration)}/s, ${Math.round(datagrams * 1000 / duration)} datagrams/s`
  return `In ${rates(passed.bytesIn, passed.datagramsIn)} | out ${rates(passed.bytesOut, passed.datagramsOut)} | ${dropped}`
}

/** The line for a log; undefined when there was no traffic. */
export function trafficText ({ duration, datagramsIn, datagramsOut, bytesIn, bytesOut, drops, dropsByReason }: Traffic): string | undefined {
  if (datagramsIn + datagramsOut + drops === 0) return undefined
  return `In the last ${Math.round(duration / 1000)} s: ${formatBytes(bytesIn)} in (${datagramsIn} datagrams), ` +
    `${formatBytes(bytesOut)} out (${datagramsOut} datagrams), ${drops} dropped${reasonsText(dropsByReason)}`
}

/** The drop reasons, named as in `sidecar.stats`, the most frequent one first. */
function reasonsText (drops: Traffic['dropsByReason']): string {
  if (drops.length === 0) return ''
  const sorted = [...drops].sort(([, one], [, other]) => other - one)
  return ` (${sorted.map(([reason, count]) => `${count} ${reason}`).join(', ')})`
}

function newDrops (before: SidecarStats, { drops }: SidecarStats): Traffic['dropsByReason'] {
  return Object.entries(drops)
    .map(([reason, count]): [string, number] => [reason, count - before.drops[reason as keyof typeof drops]])
    .filter(([, count]) => count > 0)
}

function dropsOf ({ drops }: SidecarStats): number {
  return Object.values(drops).reduce((sum, count) => sum + count)
}

const units = ['kB', 'MB', 'GB', 'TB']

function formatBytes (bytes: number): string {
  if (bytes < 999.5) return `${Math.round(bytes)} B`
  let value = bytes / 1000
  let unit = 0
  // From 999.95 on, it would be shown as 1000.0.
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${value.toFixed(1)} ${units[unit]}`
}
