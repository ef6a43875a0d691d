import { errors } from '../../errors.ts'
import type { RelayRefusedError } from '../refusal.ts'

/** Judges a failed attempt: whether another one makes sense, and whose answer it was. */

/** Statuses below 500 of the relay after which another attempt makes sense. */
const RETRIED_STATUSES = [408, 425, 429]

/** Whether the relay itself refused, and would again. An answer of something on the path may be gone at the next attempt. */
export function isFinal (error: Error): boolean {
  if (!(error instanceof errors.FST_RELAY_REFUSED)) return false
  const { statusCode, answeredBy } = error as unknown as RelayRefusedError
  return answeredBy === 'relay' && isFinalStatus(statusCode)
}

/** Whether the answer is not the relay's, and says something other than that the relay cannot be reached now. */
export function isFromBetween (error: Error): boolean {
  if (error instanceof errors.FST_RELAY_ANSWER || error instanceof errors.FST_RELAY_HTTP2) return true
  if (!(error instanceof errors.FST_RELAY_REFUSED)) return false
  const { statusCode, answeredBy } = error as unknown as RelayRefusedError
  return answeredBy === 'between' && isFinalStatus(statusCode)
}

/** The key under which `stats.failed` counts it: the status of the answer, or else the error's code. */
export function failureCode (error: Error): string {
  const { code = error.name, statusCode } = error as Partial<RelayRefusedError> & Error
  return String(error instanceof errors.FST_RELAY_REFUSED ? statusCode : code)
}

/** The `Retry-After` of the answer, in seconds; 0 where there is none. */
export function retryAfterOf (error: Error): number {
  return error instanceof errors.FST_RELAY_REFUSED ? (error as unknown as RelayRefusedError).retryAfter ?? 0 : 0
}

function isFinalStatus (statusCode: number): boolean {
  return statusCode < 500 && !RETRIED_STATUSES.includes(statusCode)
}
