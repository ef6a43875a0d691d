import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'
import type { ConnectPlan } from './options/connect-plan.ts'
import { isLookingUp } from './transport/address-memory.ts'

/** The errors for attempts that end without an answer. */

/** The error for a connection that could not be made. */
export function connectError (text: string, cause?: unknown): Error {
  const error = errors.FST_RELAY_CONNECT(text)
  if (cause !== undefined) error.cause = cause
  return error
}

/** The error for an attempt that ran out of time. It names the proxy if the attempt got no further than that. */
export function noAnswerError ({ handshakeTimeout, proxy, hostname, createConnection }: ConnectPlan, hasTransport: boolean): Error {
  const host = proxy?.hostname ?? hostname
  const waiting = createConnection === undefined && isLookingUp(host)
    ? `: the name ${printable(host)} has not been looked up yet, does this machine reach its resolver?`
    : ''
  const text = `no answer within ${handshakeTimeout} ms${waiting}`
  return proxy === undefined || hasTransport ? connectError(text) : errors.FST_RELAY_PROXY(proxy.name, text)
}

const cutErrors = new WeakSet<Error>()

/** Notes that the connection broke after the request was sent: a filter that reads requests does that. */
export function markCut (error: Error): Error {
  cutErrors.add(error)
  return error
}

export function wasCut (error: Error): boolean {
  return cutErrors.has(error)
}
