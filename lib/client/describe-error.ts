import { printable } from '../printable.ts'

/** An error in words on one line: some of Node's have no message, only a code or other errors inside. */
export function describeError (error: unknown): string {
  if (!(error instanceof Error)) return printable(String(error))
  if (error.message !== '') return printable(error.message)
  if (error instanceof AggregateError) return error.errors.map(describeError).join('; ')
  return printable((error as NodeJS.ErrnoException).code ?? error.name)
}
