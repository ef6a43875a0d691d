import { inspect } from 'node:util'
import { errors } from '../errors.ts'
import { nearestName } from '../util/nearest-name.ts'
import { printable } from '../util/printable.ts'

/** What a route's `identify` tells about a client; every part may be left out. */
export interface Identified {
  /** Who it is within its channel, 1 to 255 characters: the same id again replaces the older tunnel. Default: the public key, else random. */
  id?: string | undefined
  /** The channel it belongs to, up to 255 characters. Default: named by the route's parameters. */
  channel?: string | undefined
  /** Its WireGuard public key, as `wg pubkey` prints it, or 32 bytes; null as a database has it where there is none. */
  publicKey?: string | Uint8Array | null | undefined
  /** Anything the app wants to find again in `relayHub.peers()` and in the events. */
  context?: unknown
}

/** The same, checked. */
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

/** Of a route without `identify`. */
export const unidentified: ReadIdentity = { id: undefined, channel: undefined, publicKey: undefined, context: undefined }

/**
 * Nothing is no identity: it is what a forgotten `return` gives, and a look-up that has found nobody.
 * @throws FST_RELAY_IDENTITY that names the part and its value
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
  // The client is told, too: of an object that was given by mistake nothing is shown.
  const given = typeof value === 'object' && value !== null ? 'an object' : inspect(value, { maxStringLength: MAX_LENGTH })
  return new errors.FST_RELAY_IDENTITY(part, `${given}, not ${expected}`)
}
