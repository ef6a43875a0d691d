import { STATUS_CODES, type IncomingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'
import { errors } from '../errors.ts'
import { printable } from '../printable.ts'

/** How much of a refusal's body is read, in bytes. */
const REFUSAL_BODY_LIMIT = 16 * 1024

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

/** An answer that opened no tunnel. HTTP/2 has no status message. */
interface Refusal {
  statusCode?: number | undefined
  statusMessage?: string | undefined
  headers: IncomingHttpHeaders
}

/** Collects the body of a refusal, as far as the limit; the returned function reports what there is so far. */
export function readRefusal (refusal: Refusal, body: Readable, report: (error: Error) => void): () => void {
  const chunks: Buffer[] = []
  let length = 0
  const done = () => report(refusalOf(refusal, Buffer.concat(chunks)))
  body.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    length += chunk.length
    if (length >= REFUSAL_BODY_LIMIT) done()
  })
  body.on('end', done)
  body.on('error', done)
  return done
}

/** Makes the error for an answer that opened no tunnel. */
export function refusalOf ({ statusCode = 0, statusMessage, headers }: Refusal, body: Buffer): RelayRefusedError {
  const { code, message } = readBody(body)
  const { location } = headers
  const words = message ?? (statusMessage || STATUS_CODES[statusCode] || 'no further words')
  const text = [
    code === undefined ? '' : `${code}, `,
    words,
    location === undefined ? '' : `, to ${location}`
  ].join('')
  const retryAfter = readRetryAfter(headers['retry-after'])
  const error = errors.FST_RELAY_REFUSED(statusCode, printable(text, MAX_TEXT_LENGTH)) as RelayRefusedError
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
    ...(typeof value?.code === 'string' ? { code: printable(value.code, MAX_TEXT_LENGTH) } : {}),
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
