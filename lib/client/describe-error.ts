import { printable } from '../util/printable.ts'

/** Long enough for an error that describes a certificate. */
const MAX_MESSAGE_LENGTH = 1000

/** An error in words, on one line. Some of Node's errors have no message, only a code or further errors inside. */
export function describeError (error: unknown): string {
  if (!(error instanceof Error)) return printable(String(error))
  if (error.message !== '') return printable(error.message, MAX_MESSAGE_LENGTH)
  if (error instanceof AggregateError) return error.errors.map(describeError).join('; ')
  return printable((error as NodeJS.ErrnoException).code ?? error.name)
}
