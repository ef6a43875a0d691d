import { constants, type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders } from 'node:http2'
import { Duplex } from 'node:stream'
import { errors } from '../../errors.ts'
import { errorCodeName } from '../../tunnel/http2/http2-stream.ts'

/** What a tunnel tells its connection, and asks of it. */
export interface Http2TunnelHooks {
  /** The error that broke the connection, if it is broken. */
  explain: () => Error | undefined
  onReceived: () => void
  onSent: (bytes: number) => void
  /** A stream that took nothing more takes bytes again. */
  onUnblocked: () => void
}

/**
 * A tunnel on a stream of an HTTP/2 connection: END_STREAM is the end of a direction, and RST_STREAM, in both
 * directions, is the tunnel's destruction. To Node a reset with NO_ERROR or CANCEL is a clean end.
 */
export class Http2Tunnel extends Duplex {
  /** Emits `response`; for everything else there is the tunnel. */
  readonly stream: ClientHttp2Stream
  readonly #hooks: Http2TunnelHooks
  readonly #reset = new AbortController()
  #hasEndStream = false

  /** Sends the request. */
  constructor (session: ClientHttp2Session, headers: OutgoingHttpHeaders, hooks: Http2TunnelHooks) {
    super({ allowHalfOpen: true })
    const stream = session.request(headers, { endStream: false, signal: this.#reset.signal })
    this.stream = stream
    this.#hooks = hooks
    // Node ends the readable side for END_STREAM, when the stream is still open, and for every reset, when it is closed.
    const push = stream.push
    stream.push = (chunk, encoding) => {
      if (chunk === null && !stream.closed) this.#hasEndStream = true
      return push.call(stream, chunk, encoding)
    }
    stream.on('data', (chunk) => {
      hooks.onReceived()
      if (!this.push(chunk)) stream.pause()
    })
    stream.on('end', () => { if (this.#hasEndStream) this.push(null) })
    stream.on('error', () => {})
    // Which error it is Node knows when the turn is over.
    stream.on('aborted', () => process.nextTick(() => this.#closed()))
    stream.on('close', () => this.#closed())
    stream.pause()
  }

  override _read (): void {
    this.stream.resume()
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    this.#hooks.onSent(chunk.length)
    if (this.stream.write(chunk)) return callback()
    this.stream.once('drain', () => {
      this.#hooks.onUnblocked()
      callback()
    })
  }

  override _final (callback: () => void): void {
    this.stream.end(callback)
  }

  override _destroy (error: Error | null, callback: (error?: Error | null) => void): void {
    const { stream } = this
    if (stream.closed) stream.destroy()
    // Node's close(code) would send an END_STREAM first, by the signal it resets with CANCEL alone. Not at once: on
    // nghttp2's stack that reset gets lost.
    else if (!this.readableEnded || !this.writableFinished) setImmediate(() => this.#reset.abort())
    callback(error)
  }

  /** The stream is closed: both sides have ended, or one has reset it. */
  #closed (): void {
    const { stream } = this
    if (!this.#hasEndStream || stream.rstCode !== constants.NGHTTP2_NO_ERROR || stream.errored !== null) this.destroy(this.#fault())
    else if (!stream.writableFinished) {
      // The other side has said all that it had to say, and wants to hear no more.
      if (this.readableEnded) this.destroy()
      else this.once('end', () => this.destroy())
    }
  }

  #fault (): Error {
    return this.#hooks.explain() ?? errors.FST_RELAY_ABORTED(`RST_STREAM with ${errorCodeName(this.stream.rstCode)}`)
  }
}
