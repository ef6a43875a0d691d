import { STATUS_CODES, type IncomingMessage } from 'node:http'
import { errors } from '../errors.ts'
import { printable } from '../printable.ts'

/** How much of a refusal's body is read, in bytes. */
export const REFUSAL_BODY_LIMIT = 16 * 1024

const MAX_TEXT_LENGTH = 500

/** The relay, or something before it, answered the handshake with anything but a tunnel. */
export interface RelayRefusedError extends Error {
  code: 'FST_RELAY_REFUSED'
  /** The status of the answer. */
  statusCode: number
  /** The error code in the answer, such as `FST_RELAY_HUB_FULL`, where it has one. */
  relayCode?: string
  /** Seconds to wait before the next attempt, where the answer says so. */
  retryAfter?: number
}

/** Makes the error for an answer that is no 101. */
export function refusalOf (response: IncomingMessage, body: Buffer): RelayRefusedError {
  const statusCode = response.statusCode!
  const { code, message } = readBody(body)
  const { location } = response.headers
  const words = message ?? (response.statusMessage || STATUS_CODES[statusCode] || 'no further words')
  const text = [
    code === undefined ? '' : `${code}, `,
    words,
    location === undefined ? '' : `, to ${location}`
  ].join('')
  const retryAfter = readRetryAfter(response.headers['retry-after'])
  const error = errors.FST_RELAY_REFUSED(statusCode, printable(text).slice(0, MAX_TEXT_LENGTH)) as RelayRefusedError
  error.statusCode = statusCode
  if (code !== undefined) error.relayCode = code
  if (retryAfter !== undefined) error.retryAfter = retryAfter
  return error
}

/** The fields of a JSON error body, as Fastify writes them. */
function readBody (body: Buffer): { code?: string, message?: string } {
  let value
  try {
    value = JSON.parse(body.toString('utf8', 0, REFUSAL_BODY_LIMIT))
  } catch {
    return {} // a proxy's page, most likely: the status has to do
  }
  return {
    ...(typeof value?.code === 'string' ? { code: printable(value.code).slice(0, MAX_TEXT_LENGTH) } : {}),
    ...(typeof value?.message === 'string' ? { message: value.message } : {})
  }
}

/** Seconds, given as a number or as a date. */
function readRetryAfter (value: string | undefined): number | undefined {
  if (value === undefined) return
  if (/^\d{1,9}$/.test(value)) return Number(value)
  const at = Date.parse(value)
  return Number.isNaN(at) ? undefined : Math.max(0, Math.ceil((at - Date.now()) / 1000))
}
