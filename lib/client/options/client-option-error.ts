import { inspect } from 'node:util'
import { errors } from '../../errors.ts'

/** The error for an unusable option of the client. It names the option, what was expected, and the value. */
export function clientOptionError (name: string, expected: string, value: unknown): Error {
  return errors.FST_RELAY_CLIENT_OPTION(name, expected, inspect(value, { depth: 0, maxStringLength: 200, breakLength: Infinity }))
}

/** An integer option in a range, or its default. */
export function integerOption (name: string, value: unknown, fallback: number, min: number, max: number): number {
  if (value === undefined) return fallback
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw clientOptionError(name, `an integer from ${min} to ${max}`, value)
  }
  return value as number
}
