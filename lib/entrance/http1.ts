import { STATUS_CODES, ServerResponse, validateHeaderName, validateHeaderValue, type IncomingMessage, type OutgoingHttpHeaders } from 'node:http'
import type { Socket } from 'node:net'
import type { FastifyError } from 'fastify'
import { errors } from '../errors.ts'
import { endAndLinger } from '../linger.ts'

/** The entrance for HTTP/1.1 upgrades (RFC 9110, section 7.8): from a claimed request to a tunnel. */

const kHandshake = Symbol('fastify-spanza-relay.handshake')

interface HandshakeRequest extends IncomingMessage {
  [kHandshake]?: Handshake
}

/**
 * Headers that make no sense, or harm, in a 101: it has no content, the connection ceases to be HTTP, and what was
 * agreed on is the relay's to say.
 */
const withheldHeader = /^(?:connection|upgrade|content-.*|transfer-encoding|trailer|keep-alive|date|spanza-.*)$/i

/** Seconds until a client may try again, sent with every 429 and 503. */
const RETRY_AFTER = 5
const KEEPALIVE_MS = 60_000
/** How long a client may take to read an answer of the relay's own. */
const ANSWER_MS = 1000

/** What became of a handshake that ended without a tunnel. */
export interface Refusal {
  /** The HTTP status that was sent; 499 where the client left before any. */
  statusCode: number
  /** The code of the error of this package that was the reason; undefined where a hook of the app refused. */
  code: string | undefined
  /** That error in words. */
  message: string | undefined
}

/** Header fields as a reply of Fastify has them. */
export type ReplyHeaders = Record<string, string | number | string[] | undefined>

/** An upgrade request between its arrival and its answer. */
export class Handshake {
  readonly request: IncomingMessage
  readonly #socket: Socket
  #response: ServerResponse | undefined
  #deadline: NodeJS.Timeout | undefined
  #reason: FastifyError | undefined
  #settle: ((refusal: Refusal | undefined) => void) | undefined

  /**
   * @param onSettled called once: with undefined after the 101, else with the refusal
   */
  constructor (request: IncomingMessage, socket: Socket, head: Buffer, onSettled: (refusal: Refusal | undefined) => void) {
    this.request = request
    this.#socket = socket
    this.#settle = onSettled
    // Before anything is written: a RST that meets no listener would end the process.
    socket.on('error', this.#onError)
    socket.on('close', this.#onClose)
    socket.on('end', this.#onEnd)
    // Early data is delivered before the end of the stream, so a client that has sent some and ended has not left.
    if (head.length > 0) socket.unshift(head)
  }

  /** The handshake that came with this raw request, if it is a claimed upgrade. */
  static of (request: IncomingMessage): Handshake | undefined {
    return (request as HandshakeRequest)[kHandshake]
  }

  /** Whether the handshake waits for its answer and the client is still there to get it. */
  get isOpen (): boolean {
    return this.#settle !== undefined && this.#socket.writable && this.#response?.headersSent !== true
  }

  /**
   * Sends the request through the app's router: hooks, prefixes, 404 and error handler work as for any route.
   * @param timeoutError answered when there is no other answer after `timeout` milliseconds
   */
  dispatch (routing: (request: IncomingMessage, response: ServerResponse) => void, timeout: number, timeoutError: FastifyError): void {
    const response = this.#respond()
    if (response === undefined) return
    ;(this.request as HandshakeRequest)[kHandshake] = this
    this.#deadline = setTimeout(() => this.#answer(response, timeoutError), timeout)
    routing(this.request, response)
  }

  /** Answers before any routing. */
  refuse (error: FastifyError): void {
    const response = this.#respond()
    if (response !== undefined) this.#answer(response, error)
  }

  /** Notes why the handshake is being refused, for counters and log; the answer itself goes through the app's error handler. */
  note (reason: FastifyError): void {
    this.#reason = reason
  }

  /**
   * Sends the 101 in a write of its own and hands the socket over, early data included.
   * @param answerHeaders `Upgrade` and what the protocol adds
   * @param hookHeaders what the app's hooks have set; those that do not belong in a 101 are left out
   */
  accept (answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): Socket {
    const response = this.#response!
    const socket = this.#socket
    const headers: OutgoingHttpHeaders = { Connection: 'Upgrade', ...answerHeaders }
    for (const [name, value] of Object.entries(hookHeaders)) {
      if (value !== undefined && !withheldHeader.test(name)) headers[name] = value
    }
    // Those that hooks have set on the raw response are among `hookHeaders`.
    for (const name of response.getHeaderNames()) response.removeHeader(name)
    response.sendDate = false
    response.writeHead(101, 'Switching Protocols', headers)
    response.flushHeaders()
    response.detachSocket(socket)
    this.#finish(undefined)
    delete (this.request as HandshakeRequest)[kHandshake]
    // The new owner adds its listeners in this same turn of the event loop.
    socket.off('error', this.#onError)
    socket.off('close', this.#onClose)
    socket.off('end', this.#onEnd)
    socket.off('drain', this.#onDrain)
    response.off('finish', this.#onAnswered)
    // As those of an HTTP server are; an HTTPS server's would end with the other side.
    socket.allowHalfOpen = true
    socket.setTimeout(0)
    socket.setNoDelay(true)
    socket.setKeepAlive(true, KEEPALIVE_MS)
    return socket
  }

  /** Answers a handshake whose hooks still run; what they answer later is ignored. */
  interrupt (error: FastifyError): void {
    if (this.#response !== undefined) this.#answer(this.#response, error)
  }

  readonly #onError = (): void => {
    this.#socket.destroy()
  }

  /** The client has ended its stream and nothing of it is left to deliver: it has left, as with any other request in Node. */
  readonly #onEnd = (): void => {
    this.#socket.destroy()
  }

  /** Lets `request.signal` and `onRequestAbort` know when the client leaves while hooks run. */
  readonly #onClose = (): void => {
    this.request.destroy()
    if (this.#settle !== undefined) this.#refused(499, new errors.FST_RELAY_CLIENT_GONE())
  }

  /** As Node does for any other response: else a stream that a hook replies with would stop when the socket is full. */
  readonly #onDrain = (): void => {
    if (this.#response?.writableNeedDrain === true) this.#response.emit('drain')
  }

  readonly #onAnswered = (): void => {
    const response = this.#response!
    response.detachSocket(this.#socket)
    this.#socket.off('end', this.#onEnd)
    this.#socket.off('drain', this.#onDrain)
    this.#refused(response.statusCode, this.#reason)
    endAndLinger(this.#socket)
  }

  #respond (): ServerResponse | undefined {
    const response = new ServerResponse(this.request)
    response.shouldKeepAlive = false
    response.on('finish', this.#onAnswered)
    // A hook that writes on behind an answer that was not its own must not end the process.
    response.on('error', () => {})
    this.#socket.on('drain', this.#onDrain)
    try {
      response.assignSocket(this.#socket)
    } catch {
      // An earlier request on this connection has no answer yet; there is no place for another one.
      this.#socket.destroy()
      return undefined
    }
    this.#response = response
    return response
  }

  /** The answer Fastify would give for this error, where Fastify cannot be asked. */
  #answer (response: ServerResponse, error: FastifyError): void {
    if (response.headersSent) {
      this.#refused(response.statusCode, error)
      this.#socket.destroy()
      return
    }
    this.note(error)
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.#socket.destroy(), ANSWER_MS)
    const statusCode = error.statusCode!
    const body = JSON.stringify({ statusCode, code: error.code, error: STATUS_CODES[statusCode], message: error.message })
    // What a hook has set on the raw response belongs to an answer of its own.
    for (const name of response.getHeaderNames()) response.removeHeader(name)
    response.writeHead(statusCode, STATUS_CODES[statusCode]!, {
      connection: 'close',
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(body),
      ...retryAfter(statusCode)
    }).end(body)
  }

  #refused (statusCode: number, reason: FastifyError | undefined): void {
    this.#finish({ statusCode, code: reason?.code, message: reason?.message })
  }

  #finish (refusal: Refusal | undefined): void {
    clearTimeout(this.#deadline)
    const settle = this.#settle
    this.#settle = undefined
    settle?.(refusal)
  }
}

/** The header `Retry-After` where the status asks for one. */
export function retryAfter (statusCode: number): { 'retry-after'?: string } {
  return statusCode === 429 || statusCode === 503 ? { 'retry-after': String(RETRY_AFTER) } : {}
}

/** The names of the headers that cannot be put on the wire, because of CR, LF or another forbidden character. */
export function findInvalidHeaders (headers: ReplyHeaders): string[] {
  return Object.entries(headers).filter(([name, value]) => {
    try {
      validateHeaderName(name)
      const lines = value === undefined ? [] : [value].flat()
      for (const line of lines) validateHeaderValue(name, String(line))
      return !lines.every((line) => typeof line === 'string' || typeof line === 'number')
    } catch {
      return true
    }
  }).map(([name]) => name)
}
