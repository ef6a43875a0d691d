import type { OutgoingHttpHeaders } from 'node:http'
import { constants, Http2ServerResponse, type Http2ServerRequest, type ServerHttp2Stream } from 'node:http2'
import { errors } from '../../errors.ts'
import { limitInflated } from '../../internals/ws-internals.ts'
import { Http2StreamTunnel } from '../../tunnel/http2/http2-stream-tunnel.ts'
import { failOnReset, isFinished, resetStream } from '../../tunnel/http2/http2-stream.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'
import { Handshake, type Refusal, type ReplyHeaders, type WebSocketOutcome } from '../handshake.ts'
import { agreeOnServersDeflate, webSocketOnHttp2, type WebSocketSettings } from '../websocket/websocket-servers.ts'

/** The handshake of an extended CONNECT over HTTP/2 (RFC 8441), from a claimed request to a tunnel. Each tunnel is one stream. */

/** A request with the pseudo-header `:protocol`, from its arrival to its answer. */
export class Http2Handshake extends Handshake {
  override readonly httpVersion = '2.0'
  declare readonly request: Http2ServerRequest
  protected declare response: Http2ServerResponse
  readonly #stream: ServerHttp2Stream

  /**
   * @param onSettled called once, with undefined when the tunnel is open, else with the refusal
   */
  constructor (request: Http2ServerRequest, response: Http2ServerResponse, onSettled: (refusal: Refusal | undefined) => void) {
    super(request, onSettled)
    this.response = response
    this.#stream = request.stream
    // Node forwards the stream's errors to the request. Without a listener, such an error would end the process.
    for (const emitter of [this.#stream, request, response]) emitter.on('error', () => {})
    failOnReset(this.#stream)
    // Do not rely on the response's `finish`: Node emits it late, and also when the client has reset the stream.
    // Prepend the listener, so that it runs before the response reports its end.
    this.#stream.prependListener('close', this.#onClose)
    response.end = (...args: unknown[]) => {
      const isThere = !this.#stream.destroyed
      Reflect.apply(Http2ServerResponse.prototype.end, response, args)
      if (isThere) this.answered()
      return response
    }
  }

  override get asked (): string | undefined {
    return this.request.headers[':protocol'] as string | undefined
  }

  /** Always true: over HTTP/2, a WebSocket request has no key (RFC 8441, section 5). */
  override get asksForWebSocket (): boolean {
    return true
  }

  override accept (_protocol: string, answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): Tunnel {
    this.#accept(answerHeaders, hookHeaders)
    return new Http2StreamTunnel(this.#stream)
  }

  #accept (answerHeaders: Record<string, string>, hookHeaders: ReplyHeaders): void {
    const headers = this.headersBesides(answerHeaders, hookHeaders)
    // A hook may have set another status, which `onResponse` would then report.
    this.response.statusCode = 200
    this.#stream.respond({ ...lowerCased(headers), ':status': 200 }, { endStream: false })
    this.opened()
    this.#stream.off('close', this.#onClose)
  }

  override acceptWebSocket (settings: WebSocketSettings, hookHeaders: ReplyHeaders, { onOpen }: WebSocketOutcome): void {
    const agreed = agreeOnServersDeflate(settings, this.request.headers)
    this.#accept({
      ...settings.answerHeaders,
      ...(settings.protocol === undefined ? {} : { 'sec-websocket-protocol': settings.protocol }),
      ...(agreed === undefined ? {} : { 'sec-websocket-extensions': agreed.header })
    }, hookHeaders)
    const webSocket = webSocketOnHttp2(this.#stream, settings, agreed?.deflate)
    limitInflated(webSocket, settings.maxInflated)
    onOpen({ webSocket, stream: this.#stream, tunnel: new Http2StreamTunnel(this.#stream) })
  }

  protected override get isWritable (): boolean {
    return this.#stream.writable
  }

  protected override respond (): Http2ServerResponse {
    return this.response
  }

  protected override writeHead (statusCode: number, headers: OutgoingHttpHeaders): void {
    this.response.writeHead(statusCode, headers)
  }

  protected override destroy (): void {
    resetStream(this.#stream, constants.NGHTTP2_CANCEL)
  }

  readonly #onClose = (): void => {
    this.stopDeadline()
    if (this.isSettled) return
    if (isFinished(this.#stream)) return this.answered()
    if (!this.response.headersSent) this.response.statusCode = 499
    this.refused(499, new errors.FST_RELAY_CLIENT_GONE())
  }
}

/** HTTP/2 header names are lower-case. Node treats two spellings of one name as two headers. */
function lowerCased (headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
}
