import type { SidecarStop } from '../client/sidecar/sidecar-events.ts'

/** The exit codes, as `--help` documents them. */
export const exitCodes = {
  stopped: 0,
  unexpected: 1,
  usage: 2,
  refused: 3,
  replaced: 4,
  closed: 5
} as const

/** The exit code for the end of a sidecar. */
export function exitCodeOf ({ reason }: SidecarStop): number {
  if (reason === undefined) return exitCodes.refused
  return reason === 'replaced' ? exitCodes.replaced : exitCodes.closed
}
