import { createHash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** The checks that apply to WebSocket handshakes only, as pure functions of a request. */

export const WEBSOCKET_VERSION = '13'
const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
/** 16 bytes in base64. */
const keyPattern = /^[A-Za-z0-9+/]{22}==$/

/**
 * Checks the opening handshake (RFC 6455, section 4.2.1).
 * @param hasKey true over HTTP/1.1. HTTP/2 has no key (RFC 8441, section 5).
 * @returns an error for the first fault, or undefined
 */
export function checkOpeningHandshake (headers: IncomingHttpHeaders, hasKey: boolean): FastifyError | undefined {
  const version = headers['sec-websocket-version']
  if (version !== WEBSOCKET_VERSION) return new errors.FST_RELAY_WEBSOCKET_VERSION(printable(version ?? 'none'))
  if (hasKey && !keyPattern.test(headers['sec-websocket-key']!)) return new errors.FST_RELAY_WEBSOCKET_KEY()
}

/** Returns the `Sec-WebSocket-Accept` value for a key (RFC 6455, section 4.2.2). */
export function acceptValueOf (key: string): string {
  return createHash('sha1').update(key + GUID).digest('base64')
}
