import { inspect } from 'node:util'
import { errors } from '../errors.ts'

/** Returns FST_RELAY_OPTION with the option's name, the expected value and the given value. */
export function optionError (name: string, expected: string, value: unknown): Error {
  return new errors.FST_RELAY_OPTION(name, expected, inspect(value))
}

/**
 * Checks an option that is a non-empty list of values from `allowed`.
 * @returns the list, or `allowed` if the option is undefined
 * @throws FST_RELAY_OPTION
 */
export function readList<Name extends string> (name: string, value: readonly Name[] | undefined, allowed: readonly Name[]): readonly Name[] {
  if (value === undefined) return allowed
  if (!Array.isArray(value) || value.length === 0 || !value.every((item) => allowed.includes(item))) {
    throw optionError(name, `a list of some of ${allowed.join(', ')}`, value)
  }
  return value
}
