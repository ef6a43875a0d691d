import { inspect } from 'node:util'
import { errors } from '../errors.ts'

/** The error for an option that cannot be used, naming it and its value. */
export function optionError (name: string, expected: string, value: unknown): Error {
  return errors.FST_RELAY_CLIENT_OPTION(name, expected, inspect(value, { depth: 0, maxStringLength: 200, breakLength: Infinity }))
}
