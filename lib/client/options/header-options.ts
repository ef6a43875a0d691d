import { validateHeaderName, validateHeaderValue } from 'node:http'
import type { HttpVersionNumber } from '../../util/http-version.ts'
import { clientOptionError } from './client-option-error.ts'

/** Checks the header fields of the request that come from the user. */

/** Field names, and lists for fields that are sent more than once. */
export type HeaderFields = Record<string, string | readonly string[]>

/** Header fields that the handshake writes itself, or that would give the request a body, and what to use instead. */
const RESERVED_HEADERS = new Map([
  ['host', 'the option host'],
  ['connection', 'nothing: the handshake needs its own'],
  ['upgrade', 'nothing: the handshake needs its own'],
  ['spanza-framing', 'the option framings'],
  ['sec-websocket-key', "protocol 'websocket', which makes one for each attempt"],
  ['content-length', 'nothing: the request has no body'],
  ['transfer-encoding', 'nothing: the request has no body'],
  ['trailer', 'nothing: the request has no body'],
  ['te', 'nothing: the request has no body'],
  ['expect', 'nothing: the request has no body']
])

/** Header fields that a WebSocket's handshake writes as well. */
const WEBSOCKET_HEADERS = ['sec-websocket-version', 'sec-websocket-protocol', 'sec-websocket-extensions']

/** Header fields of a connection, which HTTP/2 does not have (RFC 9113, section 8.2.2). */
const HTTP1_HEADERS = ['keep-alive', 'proxy-connection', 'http2-settings']

export function checkHeaderFields (headers: unknown, token: unknown, httpVersion: HttpVersionNumber, isWebSocket: boolean): HeaderFields {
  // Without a prototype: the names come from outside.
  const checked: HeaderFields = Object.create(null)
  const seen = new Set<string>()
  if (token !== undefined) {
    // Messages never show the token.
    if (typeof token !== 'string' || token === '') throw clientOptionError('token', 'a string that is not empty', typeof token)
    if (!isValidHeaderValue(token)) throw clientOptionError('token', 'printable', faultOfToken(token))
    checked['Authorization'] = `Bearer ${token}`
    seen.add('authorization')
  }
  if (headers === undefined) return checked
  if (typeof headers !== 'object' || headers === null || Array.isArray(headers)) throw clientOptionError('headers', 'an object', headers)
  for (const [name, value] of Object.entries(headers)) {
    const key = name.toLowerCase()
    const instead = isWebSocket && WEBSOCKET_HEADERS.includes(key) ? 'nothing: the handshake needs its own' : RESERVED_HEADERS.get(key)
    if (instead !== undefined) throw clientOptionError(`headers['${name}']`, `absent; use ${instead}`, 'given')
    if (httpVersion === 2 && HTTP1_HEADERS.includes(key)) throw clientOptionError(`headers['${name}']`, 'absent over HTTP/2', 'given')
    if (seen.has(key)) {
      throw clientOptionError(`headers['${name}']`, key === 'authorization' && token !== undefined ? 'absent with a token' : 'given once', 'given twice')
    }
    seen.add(key)
    try {
      validateHeaderName(name)
    } catch {
      throw clientOptionError('headers', 'an object of valid header names', name)
    }
    const values: readonly unknown[] = Array.isArray(value) ? value : [value]
    // The value is not shown: it may be a secret too.
    if (values.length === 0 || !values.every((line) => isValidHeaderValue(line))) {
      throw clientOptionError(`headers['${name}']`, 'a string, or a list of strings, that a header may have', typeof value)
    }
    checked[name] = value as string | readonly string[]
  }
  return checked
}

/** Why a token cannot be a header's value, without showing it. */
function faultOfToken (token: string): string {
  if (!/[\r\n]/.test(token)) return 'one with characters that no header may have'
  return /[\r\n]/.test(token.trim()) ? 'one with a line break in the middle' : 'one with a line break at an end: trim it'
}

/** Whether a header field can have this value (RFC 9110, section 5.5). */
export function isValidHeaderValue (value: unknown): boolean {
  if (typeof value !== 'string') return false
  try {
    validateHeaderValue('name', value)
    return true
  } catch {
    return false
  }
}
