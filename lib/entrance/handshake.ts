import { STATUS_CODES, validateHeaderName, validateHeaderValue, type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http'
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { FastifyError } from 'fastify'
import { errors, isRelayError } from '../errors.ts'
import type { HttpVersion } from '../util/http-version.ts'
import { printable } from '../util/printable.ts'
import type { Tunnel } from '../tunnel/tunnel.ts'
import type { OpenWebSocket, WebSocketSettings } from './websocket/websocket-servers.ts'

/** What the handshakes of both versions of HTTP have in common. */

const kHandshake = Symbol('fastify-spanza-relay.handshake')

export type RelayRequest = IncomingMessage | Http2ServerRequest

type HandshakeResponse = ServerResponse | Http2ServerResponse

interface HandshakeRequest {
  [kHandshake]?: Handshake
}

/** Seconds until a client may try again, sent with every 429 and 503. */
const RETRY_AFTER = 5
/** How long a client may take to read an answer of the relay's own, in milliseconds. Its handshake is over by then. */
const ANSWER_MS = 1000

/**
 * Headers that make no sense, or harm, in an answer behind which a tunnel begins: it has no content, and what was
 * agreed on is the relay's to say.
 */
const withheldHeader = /^(?:connection|upgrade|content-.*|transfer-encoding|trailer|keep-alive|te|proxy-connection|http2-settings|date|spanza-.*|sec-websocket-.*)$/i

/** What became of a handshake that ended without a tunnel. */
export interface Refusal {
  /** The HTTP status that was sent; 499 where the client left before any. */
  statusCode: number
  /** The code of the error that was the reason, this package's or the app's; undefined where a hook replied without one. */
  code: string | undefined
  /** That error in words. */
  message: string | undefined
  /** What it is counted as: the code of an error of ours, else the status. The app's codes may be any number. */
  counter: string
}

/** What a handshake is refused for: an error of ours, or whatever a hook of the app has thrown. */
export type Reason = { readonly code?: unknown, readonly message?: unknown }

/** A tunnel that only has to be opened: one of the two is called. */
export interface Opening {
  /** Throws what is to be answered instead. */
  open: () => void
  /** Lets go of what was held for the tunnel. */
  giveUp: () => void
}

/** Header fields as a reply of Fastify has them. */
export type ReplyHeaders = Record<string, string | number | string[] | undefined>

/** What becomes of a WebSocket that is to be opened: it opens or it fails. */
export interface WebSocketOutcome {
  onOpen: (opened: OpenWebSocket) => void
  onFailed: () => void
  /** Told what the app's own WebSocket server has thrown after it took its time, whatever becomes of the WebSocket. */
  onFault: (error: unknown) => void
}

/** A request for a tunnel between its arrival and its answer. */
export abstract class Handshake {
  readonly request: RelayRequest
  abstract readonly httpVersion: HttpVersion
  /** What the client asks for, as the list that `Upgrade` is. */
  abstract readonly asked: string | undefined
  /** Whether a WebSocket of RFC 6455 is asked for wherever `asked` says `websocket`. */
  abstract readonly asksForWebSocket: boolean
  protected response: HandshakeResponse | undefined
  #deadline: NodeJS.Timeout | undefined
  #reason: Reason | undefined
  #opening: Opening | undefined
  #isIgnored = false
  #settle: ((refusal: Refusal | undefined) => void) | undefined

  /**
   * @param onSettled called once: with undefined when the tunnel is open, else with the refusal
   */
  constructor (request: RelayRequest, onSettled: (refusal: Refusal | undefined) => void) {
    this.request = request
    this.#settle = onSettled
  }

  /** The handshake that came with this raw request, if it is a claimed one. */
  static of (request: object): Handshake | undefined {
    return (request as HandshakeRequest)[kHandshake]
  }

  /** Whether the handshake waits for its answer and the client is still there to get it. */
  get isOpen (): boolean {
    return !this.isSettled && this.isWritable && this.response?.headersSent !== true
  }

  /**
   * Sends the request through the app's router: hooks, prefixes, 404 and error handler work as for any route.
   * @param timeout after so many milliseconds without an answer it is answered with FST_RELAY_HANDSHAKE_TIMEOUT
   */
  dispatch (routing: (request: IncomingMessage, response: ServerResponse) => void, timeout: number): void {
    const response = this.respond()
    if (response === undefined) return this.waitForTurn(timeout)
    ;(this.request as HandshakeRequest)[kHandshake] = this
    this.#deadline = setTimeout(() => this.#answer(response, new errors.FST_RELAY_HANDSHAKE_TIMEOUT(timeout)), timeout)
    // Fastify's type knows the request of one version only.
    routing(this.request as IncomingMessage, response as ServerResponse)
  }

  /** Answers before any routing. */
  refuse (error: FastifyError): void {
    const response = this.respond()
    if (response !== undefined) return this.#answer(response, error)
    this.refused(error.statusCode!, error)
    this.destroy()
  }

  /** Notes why the handshake is being refused, for counters and log; the answer itself goes through the app's error handler. */
  note (reason: Reason | undefined): void {
    this.#reason = reason
  }

  /** Notes that all is agreed on, and how to open the tunnel: that waits for the hooks that see the answer before it is sent. */
  prepare (opening: Opening): void {
    this.#opening = opening
  }

  /** What `prepare` has noted, once. The handshake's end gives up what has not been taken. */
  takeOpening (): Opening | undefined {
    const opening = this.#opening
    this.#opening = undefined
    return opening
  }

  /** Takes the request for one that asks for no upgrade (RFC 9110, section 7.8): what answers it may take its time. */
  ignore (): void {
    this.#isIgnored = true
    clearTimeout(this.#deadline)
    delete (this.request as HandshakeRequest)[kHandshake]
  }

  /** Answers a handshake whose hooks still run; what they answer later is ignored. */
  interrupt (error: FastifyError): void {
    if (this.response !== undefined) this.#answer(this.response, error)
    else this.refused(error.statusCode!, error)
  }

  /**
   * Opens the tunnel: sends the answer in a write of its own, and gives the tunnel, early data included.
   * @param protocol what was chosen of `asked`
   * @param answerHeaders what the protocol says about it
   * @param hookHeaders what the app's hooks have set; those that do not belong there are left out
   */
  abstract accept (protocol: string, answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): Tunnel

  /**
   * The same for a WebSocket, in the same turn of the event loop unless the app's own WebSocket server takes its time.
   * Throws what that server throws before it does; then there is no outcome.
   */
  abstract acceptWebSocket (settings: WebSocketSettings, hookHeaders: ReplyHeaders, outcome: WebSocketOutcome): void

  protected abstract readonly isWritable: boolean

  /** Makes what the answer is written with; undefined while an earlier request on the connection has no answer. */
  protected abstract respond (): HandshakeResponse | undefined

  /** Refuses the handshake when the earlier requests on its connection have their answers, or ends it after `timeout` milliseconds. */
  protected waitForTurn (_timeout: number): void {}

  protected abstract writeHead (statusCode: number, headers: OutgoingHttpHeaders): void

  /** Ends the tunnel-to-be at once. */
  protected abstract destroy (): void

  protected get isSettled (): boolean {
    return this.#settle === undefined
  }

  /** The hooks' headers without what does not belong before a tunnel. */
  protected headersBesides (own: OutgoingHttpHeaders, hookHeaders: ReplyHeaders): OutgoingHttpHeaders {
    const headers = { ...own }
    for (const [name, value] of Object.entries(hookHeaders)) {
      if (value !== undefined && !withheldHeader.test(name)) headers[name] = value
    }
    return headers
  }

  /** The tunnel is open. */
  protected opened (): void {
    this.stopDeadline()
    this.#finish(undefined)
    delete (this.request as HandshakeRequest)[kHandshake]
  }

  /** The whole of an answer other than a tunnel has been handed over. Whether the client takes it no longer counts. */
  protected answered (): void {
    this.refused(this.response!.statusCode, this.#reason)
  }

  /** The client has the answer, or has left: nothing more is waited for. */
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

  /** The answer Fastify would give for this error, where Fastify cannot be asked. */
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
    // What a hook has set on the raw response belongs to an answer of its own.
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
