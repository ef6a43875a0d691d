import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'
import type { ConnectPlan } from './connect-options.ts'

/** The words about a certificate are long. */
const MAX_MESSAGE_LENGTH = 1000

/** An error in words on one line: some of Node's have no message, only a code or other errors inside. */
export function describeError (error: unknown): string {
  if (!(error instanceof Error)) return printable(String(error))
  if (error.message !== '') return printable(error.message, MAX_MESSAGE_LENGTH)
  if (error instanceof AggregateError) return error.errors.map(describeError).join('; ')
  return printable((error as NodeJS.ErrnoException).code ?? error.name)
}

/** The error for a connection that did not come about. */
export function connectError (text: string, cause?: unknown): Error {
  const error = errors.FST_RELAY_CONNECT(text)
  if (cause !== undefined) error.cause = cause
  return error
}

/** The error for an attempt whose time is over, naming the proxy if that was as far as it came. */
export function noAnswerError ({ handshakeTimeout, proxy }: ConnectPlan, hasTransport: boolean): Error {
  const text = `no answer within ${handshakeTimeout} ms`
  return proxy === undefined || hasTransport ? connectError(text) : errors.FST_RELAY_PROXY(proxy.name, text)
}

const cutErrors = new WeakSet<Error>()

/** Notes that the connection broke behind the request, as a filter does that looks at what is asked for. */
export function markCut (error: Error): Error {
  cutErrors.add(error)
  return error
}

export function wasCut (error: Error): boolean {
  return cutErrors.has(error)
}
