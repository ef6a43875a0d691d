import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** What must hold for a WebSocket beyond what holds for any handshake, as pure functions of a request. */

export const WEBSOCKET_VERSION = '13'
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
/** 16 bytes in base64. */
const keyPattern = /^[A-Za-z0-9+/]{22}==$/

/**
 * The opening handshake (RFC 6455, section 4.2.1; over HTTP/2 there is no key, RFC 8441, section 5).
 * @returns what is wrong, or undefined
 */
export function checkOpeningHandshake (headers: IncomingHttpHeaders, hasKey: boolean): FastifyError | undefined {
  const version = headers['sec-websocket-version']
  if (version !== WEBSOCKET_VERSION) return new errors.FST_RELAY_WEBSOCKET_VERSION(printable(version ?? 'none'))
  if (hasKey && !keyPattern.test(headers['sec-websocket-key']!)) return new errors.FST_RELAY_WEBSOCKET_KEY()
}

/** What the server answers to a key (RFC 6455, section 4.2.2). */
export function acceptValueOf (key: string): string {
  return createHash('sha1').update(key + GUID).digest('base64')
}
