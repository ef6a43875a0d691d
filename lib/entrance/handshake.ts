import { STATUS_CODES, validateHeaderName, validateHeaderValue, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import type { FastifyError } from 'fastify'
import { errors, isRelayError } from '../errors.ts'
import type { RawRequest } from '../internals/fastify-internals.ts'
import type { HttpVersion } from '../util/http-version.ts'
import { printable } from '../util/printable.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { OpenWebSocket, WebSocketSettings } from './websocket/websocket-servers.ts'

/** The part of a handshake that HTTP/1.1 and HTTP/2 share. */

const kHandshake = Symbol('fastify-spanza-relay.handshake')

export type RelayRequest = RawRequest

type HandshakeResponse = ServerResponse | Http2ServerResponse

interface HandshakeRequest {
  [kHandshake]?: Handshake
}

/** `Retry-After` of every 429 and 503, in seconds. */
const RETRY_AFTER = 5
/** How long a client may take to read one of the relay's own answers, in milliseconds. Its handshake has already ended. */
const ANSWER_MS = 1000

/**
 * Hook headers that are dropped from the answer that opens a tunnel. That answer has no content, and only the relay may
 * announce what was negotiated.
 */
const withheldHeader = /^(?:connection|upgrade|content-.*|transfer-encoding|trailer|keep-alive|te|proxy-connection|http2-settings|date|spanza-.*|sec-websocket-.*)$/i

/** The result of a handshake that ended without a tunnel. */
export interface Refusal {
  /** The HTTP status sent, or 499 if the client left before the relay sent one. */
  statusCode: number
  /** The code of the error behind the refusal, from this package or the app; undefined if a hook replied without an error. */
  code: string | undefined
  /** The message of that error. */
  message: string | undefined
  /** The counter to increment: the code of this package's error, else the status. The app's codes are unbounded, so they are not counted. */
  counter: string
}

/** The reason for a refusal: an error of this package, or any value that an app hook has thrown. */
export type Reason = { readonly code?: unknown, readonly message?: unknown }

/** A tunnel that is ready to open. The handshake calls either `open` or `giveUp`. */
export interface Opening {
  /** Opens the tunnel. If it throws, the client gets that error as the HTTP response. */
  open: () => void
  /** Releases what was reserved for the tunnel. */
  giveUp: () => void
}

/** Header fields in the form that a Fastify reply keeps them. */
export type ReplyHeaders = Record<string, string | number | string[] | undefined>

/** Callbacks for the opening of a WebSocket: it either opens or fails. */
export interface WebSocketOutcome {
  onOpen: (opened: OpenWebSocket) => void
  onFailed: () => void
  /** Called with an error that the app's own WebSocket server throws asynchronously, whether or not the WebSocket opens. */
  onFault: (error: unknown) => void
}

/** A tunnel request, from its arrival to its answer. */
export abstract class Handshake {
  readonly request: RelayRequest
  abstract readonly httpVersion: HttpVersion
  /** The protocols that the client asks for, as a list in the syntax of `Upgrade`. */
  abstract readonly asked: string | undefined
  /** True if `websocket` in `asked` means a WebSocket of RFC 6455. */
  abstract readonly asksForWebSocket: boolean
  protected response: HandshakeResponse | undefined
  #deadline: NodeJS.Timeout | undefined
  #reason: Reason | undefined
  #opening: Opening | undefined
  #isIgnored = false
  #settle: ((refusal: Refusal | undefined) => void) | undefined

  /**
   * @param onSettled called once, with undefined when the tunnel is open, else with the refusal
   */
  constructor (request: RelayRequest, onSettled: (refusal: Refusal | undefined) => void) {
    this.request = request
    this.#settle = onSettled
  }

  /** The handshake of this raw request; undefined if the request was not claimed. */
  static of (request: object): Handshake | undefined {
    return (request as HandshakeRequest)[kHandshake]
  }

  /** True while the handshake is unanswered and the client is still connected. */
  get isOpen (): boolean {
    return !this.isSettled && this.isWritable && this.response?.headersSent !== true
  }

  /**
   * Sends the request through the app's router. Hooks, prefixes, 404 and the error handler work as for any route.
   * @param timeout milliseconds without an answer after which the client gets FST_RELAY_HANDSHAKE_TIMEOUT
   */
  dispatch (routing: (request: IncomingMessage, response: ServerResponse) => void, timeout: number): void {
    const response = this.respond()
    if (response === undefined) return this.waitForTurn(timeout)
    ;(this.request as HandshakeRequest)[kHandshake] = this
    this.#deadline = setTimeout(() => this.#answer(response, new errors.FST_RELAY_HANDSHAKE_TIMEOUT(timeout)), timeout)
    // Fastify's type covers the requests of one HTTP version only.
    routing(this.request as IncomingMessage, response as ServerResponse)
  }

  /** Refuses the handshake without routing it. */
  refuse (error: FastifyError): void {
    const response = this.respond()
    if (response !== undefined) return this.#answer(response, error)
    this.refused(error.statusCode!, error)
    this.destroy()
  }

  /** Records the reason for a refusal, for the counters and the log. The answer itself goes through the app's error handler. */
  note (reason: Reason | undefined): void {
    this.#reason = reason
  }

  /** Stores how to open the tunnel once negotiation is complete. The tunnel opens after the hooks that see the answer before it is sent. */
  prepare (opening: Opening): void {
    this.#opening = opening
  }

  /** Returns what `prepare` has stored, once. An opening that is not taken is given up when the handshake ends. */
  takeOpening (): Opening | undefined {
    const opening = this.#opening
    this.#opening = undefined
    return opening
  }

  /** Treats the request as one without an upgrade (RFC 9110, section 7.8). Its answer has no deadline. */
  ignore (): void {
    this.#isIgnored = true
    clearTimeout(this.#deadline)
    delete (this.request as HandshakeRequest)[kHandshake]
  }

  /** Answers a handshake while its hooks still run. Their later answer is ignored. */
  interrupt (error: FastifyError): void {
    if (this.response !== undefined) this.#answer(this.response, error)
    else this.refused(error.statusCode!, error)
  }

  /**
   * Opens the tunnel: sends the answer in a separate write and returns the tunnel, including early data.
   * @param protocol the protocol chosen from `asked`
   * @param answerHeaders the headers that the protocol adds to the answer
   * @param hookHeaders the headers that the app's hooks have set; those that a tunnel's answer must not have are dropped
   */
  abstract accept (protocol: string, answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): Tunnel

  /**
   * Opens a WebSocket, in the same turn of the event loop unless the app's own WebSocket server is asynchronous.
   * @throws any error that this server throws synchronously; then no callback of `outcome` is called
   */
  abstract acceptWebSocket (settings: WebSocketSettings, hookHeaders: ReplyHeaders, outcome: WebSocketOutcome): void

  protected abstract readonly isWritable: boolean

  /** Creates the response; returns undefined while an earlier request on the connection is unanswered. */
  protected abstract respond (): HandshakeResponse | undefined

  /** Refuses the handshake once the earlier requests on its connection are answered. Ends it after `timeout` milliseconds. */
  protected waitForTurn (_timeout: number): void {}

  protected abstract writeHead (statusCode: number, headers: OutgoingHttpHeaders): void

  /** Destroys the handshake's stream at once. */
  protected abstract destroy (): void

  protected get isSettled (): boolean {
    return this.#settle === undefined
  }

  /** Merges the hooks' headers into `own`, without those that a tunnel's answer must not have. */
  protected headersBesides (own: OutgoingHttpHeaders, hookHeaders: ReplyHeaders): OutgoingHttpHeaders {
    const headers = { ...own }
    for (const [name, value] of Object.entries(hookHeaders)) {
      if (value !== undefined && !withheldHeader.test(name)) headers[name] = value
    }
    return headers
  }

  /** Settles the handshake: the tunnel is open. */
  protected opened (): void {
    this.stopDeadline()
    this.#finish(undefined)
    delete (this.request as HandshakeRequest)[kHandshake]
  }

  /** Settles the handshake as refused: the whole answer has been written. Whether the client reads it no longer matters. */
  protected answered (): void {
    this.refused(this.response!.statusCode, this.#reason)
  }

  /** Stops the deadline: the client has the answer, or has left. */
  protected stopDeadline (): void {
    clearTimeout(this.#deadline)
  }

  protected refused (statusCode: number, reason: Reason | undefined): void {
    if (this.#isIgnored) return this.#finish(undefined)
    const { code, message } = reason ?? {}
    this.#finish({
      statusCode, code: shown(code), message: shown(message), counter: isRelayError(reason) ? reason.code : String(statusCode)
    })
  }

  /** Sends the answer that Fastify would give for this error, for cases that bypass Fastify. */
  #answer (response: HandshakeResponse, error: FastifyError): void {
    if (response.headersSent) {
      this.refused(response.statusCode, error)
      this.destroy()
      return
    }
    this.note(error)
    clearTimeout(this.#deadline)
    this.#deadline = setTimeout(() => this.destroy(), ANSWER_MS)
    const statusCode = error.statusCode!
    const body = JSON.stringify({ statusCode, code: error.code, error: STATUS_CODES[statusCode], message: error.message })
    // Headers that a hook has set on the raw response were meant for the hook's own answer.
    for (const name of response.getHeaderNames()) response.removeHeader(name)
    this.writeHead(statusCode, {
      'content-type': 'application/json; charset=utf-8',
      'content-length': Buffer.byteLength(body),
      ...retryAfter(statusCode)
    })
    response.end(body)
  }

  #finish (refusal: Refusal | undefined): void {
    const settle = this.#settle
    this.#settle = undefined
    this.takeOpening()?.giveUp()
    settle?.(refusal)
  }
}

function shown (text: unknown): string | undefined {
  return typeof text === 'string' ? printable(text) : undefined
}

/** The header `Retry-After` for 429 and 503; empty for any other status. */
export function retryAfter (statusCode: number): { 'retry-after'?: string } {
  return statusCode === 429 || statusCode === 503 ? { 'retry-after': String(RETRY_AFTER) } : {}
}

/** The names of the headers that Node cannot send: CR, LF or another forbidden character, or a value of the wrong type. */
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
