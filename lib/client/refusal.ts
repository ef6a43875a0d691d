import { STATUS_CODES, type IncomingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'
import { headerText } from './header-text.ts'

/** How much of a refusal's body is read, in bytes. */
const REFUSAL_BODY_LIMIT = 16 * 1024

/** The longest error code that is taken from a body, in characters. */
const MAX_CODE_LENGTH = 500
/** The same for each part of an error's message. */
const MAX_WORDS_LENGTH = 256

/** The source of an answer: the `relay`, or something `between` this side and the relay, which may be gone at the next attempt. */
export type AnsweredBy = 'relay' | 'between'

/** The handshake was answered with anything but a tunnel. */
export interface RelayRefusedError extends Error {
  code: 'FST_RELAY_REFUSED'
  /** The status of the answer. */
  statusCode: number
  /**
   * `relay` for an answer with an error code of this package, or in the JSON form of Fastify's errors. `between` for any other:
   * a login page, a filter, a proxy whose relay is down. A relay's 426 is `between` as well: the request asked for an upgrade,
   * so a proxy removed the Upgrade header.
   */
  answeredBy: AnsweredBy
  /** The error code in the answer, such as `FST_RELAY_HUB_FULL`, if there is one. */
  relayCode?: string
  /** Seconds to wait before the next attempt, if the answer gives them. */
  retryAfter?: number
}

/** An answer that opened no tunnel. Over HTTP/2 it has no status message. */
interface RefusingAnswer {
  statusCode?: number | undefined
  statusMessage?: string | undefined
  headers: IncomingHttpHeaders
}

/** Collects the body of a refusal up to the limit. The returned function reports it as far as it has come. */
export function readRefusal (refusal: RefusingAnswer, body: Readable, report: (error: Error) => void): () => void {
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
export function refusalOf ({ statusCode = 0, statusMessage, headers }: RefusingAnswer, body: Buffer): RelayRefusedError {
  const { code, message, isRelays } = readBody(body)
  const lostUpgrade = code === 'FST_RELAY_UPGRADE_REQUIRED'
  const answeredBy = isRelays && !lostUpgrade ? 'relay' : 'between'
  const words = message ?? (statusMessage || STATUS_CODES[statusCode] || 'no further words')
  const text = [
    code === undefined ? '' : `${printable(code, MAX_WORDS_LENGTH)}, `,
    printable(words, MAX_WORDS_LENGTH),
    headers.location === undefined ? '' : `, to ${printable(headers.location, MAX_WORDS_LENGTH)}`,
    answeredBy === 'relay' || headers['server'] === undefined ? '' : `, Server: ${headerText(headers['server'])}`,
    lostUpgrade ? RECIPE : answeredBy === 'relay' ? '' : guessOf(statusCode, body)
  ].join('')
  const retryAfter = readRetryAfter(headers['retry-after'])
  const error = errors.FST_RELAY_REFUSED(lostUpgrade ? LOST_UPGRADE : answerers[answeredBy], statusCode, text) as RelayRefusedError
  error.statusCode = statusCode
  error.answeredBy = answeredBy
  if (code !== undefined) error.relayCode = code
  if (retryAfter !== undefined) error.retryAfter = retryAfter
  return error
}

const answerers: Record<AnsweredBy, string> = { relay: 'The relay', between: 'Something between you and the relay' }
const LOST_UPGRADE = 'A proxy before the relay took the Upgrade header away, and the relay'
const RECIPE = '; mend the proxy with its recipe in docs/behind-proxies.md of fastify-spanza-relay'

/** A guess at the kind of server that answered, by what such servers usually say. */
function guessOf (statusCode: number, body: Buffer): string {
  const page = body.toString('latin1')
  if (page.includes('plain HTTP request was sent to HTTPS port')) return ' (the port speaks TLS: use https:)'
  if (page.includes('SSL certificate')) return ' (a server that wants another client certificate?)'
  if ((statusCode >= 200 && statusCode < 400) || statusCode === 511) return ' (a login page?)'
  const guess = guesses.get(statusCode)
  return guess === undefined ? '' : ` (${guess})`
}

const passesNoUpgrade = 'a proxy that does not pass Upgrade on?'
const cannotReach = 'a proxy that does not reach the relay?'
const guesses = new Map([
  [400, passesNoUpgrade],
  [403, 'a filter that blocks this?'],
  [404, 'a server that does not know the relay, or not yet; is the path right?'],
  [405, passesNoUpgrade],
  [407, 'a proxy that wants a user name and a password'],
  [421, 'a server that does not know this host name'],
  [426, passesNoUpgrade],
  [451, 'a filter that blocks this?'],
  [501, passesNoUpgrade],
  [502, cannotReach],
  [503, cannotReach],
  [504, cannotReach],
  [505, passesNoUpgrade]
])

interface ErrorBody {
  code?: string
  message?: string
  /** Whether the relay, or the app around it, writes bodies of this form. */
  isRelays: boolean
}

/** The fields of a JSON error body, as Fastify writes them. */
function readBody (body: Buffer): ErrorBody {
  let value
  try {
    value = JSON.parse(body.toString('utf8', 0, REFUSAL_BODY_LIMIT))
  } catch {
    return { isRelays: false } // most likely a proxy's page: only the status can be used
  }
  const code = typeof value?.code === 'string' ? printable(value.code, MAX_CODE_LENGTH) : undefined
  const message = typeof value?.message === 'string' ? value.message : undefined
  const isFastifys = typeof value?.statusCode === 'number' && typeof value.error === 'string' && message !== undefined
  return {
    ...(code === undefined ? {} : { code }),
    ...(message === undefined ? {} : { message }),
    isRelays: isFastifys || code?.startsWith('FST_RELAY_') === true
  }
}

/** Seconds, given as a number or as a date. */
function readRetryAfter (value: string | undefined): number | undefined {
  if (value === undefined) return
  if (/^\d{1,9}$/.test(value)) return Number(value)
  const at = Date.parse(value)
  return Number.isNaN(at) ? undefined : Math.max(0, Math.ceil((at - Date.now()) / 1000))
}
