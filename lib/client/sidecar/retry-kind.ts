import { errors } from '../../errors.ts'
import type { RetryKind } from './backoff.ts'
import type { RelayRefusedError } from '../refusal.ts'
import type { SidecarEndReason } from './sidecar-stats.ts'

/** The system's errors when nothing can leave this machine, or its resolver cannot be reached. */
const NO_NETWORK = ['ENETUNREACH', 'EHOSTUNREACH', 'ENETDOWN', 'EHOSTDOWN', 'EADDRNOTAVAIL', 'EINVAL', 'EAI_AGAIN']
/** Statuses of a proxy while there is no relay behind it. */
const DOWN_STATUSES = [502, 503, 504]
/** The kind of wait after each end of a connection: `down` where the relay, or the path to it, has to come back first. */
const kindsOfEnds: Record<SidecarEndReason, RetryKind> = {
  'protocol-error': 'refusing',
  unstamped: 'refusing',
  replaced: 'refusing',
  idle: 'down',
  'write-deadline': 'refusing',
  disconnected: 'refusing',
  shutdown: 'down',
  'target-failed': 'refusing',
  limit: 'refusing',
  closed: 'refusing',
  lost: 'down',
  unknown: 'refusing',
  drained: 'refusing'
}

/** The kind of wait after a failed attempt. */
export function kindOfFailure (error: Error): RetryKind {
  if (error instanceof errors.FST_RELAY_REFUSED) {
    const { statusCode, relayCode, retryAfter } = error as unknown as RelayRefusedError
    const isDown = DOWN_STATUSES.includes(statusCode) && (relayCode === undefined || relayCode === 'FST_RELAY_CLOSING')
    return isDown && retryAfter === undefined ? 'down' : 'refusing'
  }
  const isConnect = error instanceof errors.FST_RELAY_CONNECT
  if (!isConnect && !(error instanceof errors.FST_RELAY_PROXY)) return 'refusing'
  const codes = codesOf(error.cause)
  if (codes.length === 0) return isConnect ? 'down' : 'refusing'
  return codes.every((code) => NO_NETWORK.includes(code)) ? 'no-network' : 'down'
}

/** The kind of wait after the end of a connection. */
export function kindOfEnd (reason: SidecarEndReason): RetryKind {
  return kindsOfEnds[reason]
}

/** One code for each address that was tried. */
function codesOf (cause: unknown): string[] {
  if (cause instanceof AggregateError) return cause.errors.flatMap(codesOf)
  const { code } = (cause ?? {}) as NodeJS.ErrnoException
  return code === undefined ? [] : [code]
}
