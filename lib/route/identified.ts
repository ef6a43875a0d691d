import { inspect } from 'node:util'
import { errors } from '../errors.ts'
import { nearestName } from '../util/nearest-name.ts'
import { printable } from '../util/printable.ts'

/** The result of a route's `identify`. Every part is optional. */
export interface Identified {
  /**
   * Identifies the client within its channel, 1 to 255 characters. A new tunnel with the same id replaces the older one.
   * Default: the public key, or a random id without one.
   */
  id?: string | undefined
  /** The client's channel, up to 255 characters. Default: the values of the route's parameters. */
  channel?: string | undefined
  /** The client's WireGuard public key: text as `wg pubkey` prints it, or 32 bytes. Null means no key, as in a database column. */
  publicKey?: string | Uint8Array | null | undefined
  /** Any value of the app. `relayHub.peers()` and the hub's events return it. */
  context?: unknown
}

/** A checked `Identified`. */
export interface ReadIdentity {
  id: string | undefined
  channel: string | undefined
  publicKey: Buffer | undefined
  context: unknown
}

const MAX_LENGTH = 255
const KEY_LENGTH = 32
const keyPattern = /^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/

const parts = Object.keys({ id: true, channel: true, publicKey: true, context: true } satisfies Record<keyof Identified, true>)

/** The identity on a route without `identify`. */
export const unidentified: ReadIdentity = { id: undefined, channel: undefined, publicKey: undefined, context: undefined }

/**
 * Checks the result of `identify`. It rejects undefined and null: a forgotten `return` or a failed look-up yields them.
 * @throws FST_RELAY_IDENTITY with the invalid part and its value
 */
export function readIdentity (identified: Identified): ReadIdentity {
  if (typeof identified !== 'object' || identified === null || Array.isArray(identified)) {
    throw new errors.FST_RELAY_IDENTITY('result', `${inspect(identified, { depth: 0, maxStringLength: MAX_LENGTH })}, not an object; {} leaves every part to its default`)
  }
  const unknown = Object.keys(identified).find((name) => !parts.includes(name))
  if (unknown !== undefined) {
    const meant = nearestName(unknown, parts)
    throw new errors.FST_RELAY_IDENTITY(`part ${printable(unknown)}`, meant === undefined ? `there are only ${parts.join(', ')}` : `did you mean ${meant}?`)
  }
  const { id, channel, publicKey, context } = identified
  if (id !== undefined && (typeof id !== 'string' || id === '' || id.length > MAX_LENGTH)) throw unusable('id', id, `a string of 1 to ${MAX_LENGTH} characters`)
  if (channel !== undefined && (typeof channel !== 'string' || channel.length > MAX_LENGTH)) throw unusable('channel', channel, `a string of at most ${MAX_LENGTH} characters`)
  const key = publicKey == null ? undefined : readKey(publicKey)
  return { id: id ?? key?.toString('base64'), channel, publicKey: key, context }
}

function readKey (publicKey: string | Uint8Array): Buffer {
  const bytes = typeof publicKey === 'string' && keyPattern.test(publicKey)
    ? Buffer.from(publicKey, 'base64')
    : publicKey instanceof Uint8Array ? Buffer.from(publicKey) : undefined
  if (bytes?.length !== KEY_LENGTH) throw unusable('publicKey', publicKey, 'a WireGuard public key, 44 characters as `wg pubkey` prints it or 32 bytes')
  return bytes
}

function unusable (part: string, value: unknown, expected: string): Error {
  // The client sees this message too, so it must not show the contents of an object.
  const given = typeof value === 'object' && value !== null ? 'an object' : inspect(value, { maxStringLength: MAX_LENGTH })
  return new errors.FST_RELAY_IDENTITY(part, `${given}, not ${expected}`)
}
