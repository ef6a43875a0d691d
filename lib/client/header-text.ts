import { printable } from '../util/printable.ts'

const MAX_HEADER_TEXT = 100

/** A header's value for a message: without control characters, and not too long. */
export function headerText (value: string | string[] | undefined): string {
  return printable(String(value), MAX_HEADER_TEXT)
}
