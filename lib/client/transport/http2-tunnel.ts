import { constants, type ClientHttp2Session, type ClientHttp2Stream, type OutgoingHttpHeaders } from 'node:http2'
import { Duplex } from 'node:stream'
import { errors } from '../../errors.ts'
import { errorCodeName } from '../../tunnel/http2/http2-stream.ts'

/** The calls of a tunnel to its connection. */
export interface Http2TunnelHooks {
  /** Returns the error that broke the connection, if it is broken. */
  explain: () => Error | undefined
  onReceived: () => void
  onSent: (bytes: number) => void
  /** A blocked stream takes bytes again. */
  onUnblocked: () => void
}

/**
 * A tunnel on a stream of an HTTP/2 connection. END_STREAM ends one direction, and RST_STREAM destroys the tunnel, whichever
 * side sends it. Node itself treats a reset with NO_ERROR or CANCEL as a clean end.
 */
export class Http2Tunnel extends Duplex {
  /** Use it for `response` and `rstCode`; for everything else use the tunnel. */
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
    // Node ends the readable side for END_STREAM, while the stream is still open, and for every reset, when it is closed.
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
    // Node sets the error by the end of this turn.
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
    // Node's close(code) would send END_STREAM first. The signal makes it send only RST_STREAM with CANCEL. Not at once: a
    // reset that is sent from within a callback of nghttp2 gets lost.
    else if (!this.readableEnded || !this.writableFinished) setImmediate(() => this.#reset.abort())
    callback(error)
  }

  /** The stream is closed: both sides have ended, or one has reset it. */
  #closed (): void {
    const { stream } = this
    if (!this.#hasEndStream || stream.rstCode !== constants.NGHTTP2_NO_ERROR || stream.errored !== null) this.destroy(this.#fault())
    else if (!stream.writableFinished) {
      // The other side has sent everything, and takes nothing more.
      if (this.readableEnded) this.destroy()
      else this.once('end', () => this.destroy())
    }
  }

  #fault (): Error {
    return this.#hooks.explain() ?? errors.FST_RELAY_ABORTED(`RST_STREAM with ${errorCodeName(this.stream.rstCode)}`)
  }
}
