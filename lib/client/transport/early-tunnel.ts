import { Duplex } from 'node:stream'

/**
 * A bare tunnel in use before the relay has answered. Writes go to the transport at once, under its backpressure. Reading
 * begins after the 101. An end waits for the 101 as well: an HTTP server takes the end of a request's stream as a sign that
 * the client has left.
 */
export class EarlyTunnel extends Duplex {
  readonly #transport: Duplex
  #isOpen = false
  #waitingEnd: (() => void) | undefined

  /** @param transport the request has been written to it, and nothing else writes to it any more */
  constructor (transport: Duplex) {
    super({ allowHalfOpen: true })
    this.#transport = transport
  }

  /** The relay has accepted, and the transport's bytes are the tunnel's from now on. Otherwise call `destroy(error)`. */
  open (): void {
    const transport = this.#transport
    this.#isOpen = true
    transport.on('data', (chunk) => { if (!this.push(chunk)) transport.pause() })
    transport.on('end', () => this.push(null))
    transport.on('error', (error) => this.destroy(error))
    // When both sides have ended, bytes that wait here can still be read.
    transport.on('close', () => { if (!transport.readableEnded) this.destroy() })
    this.#waitingEnd?.()
  }

  override _read (): void {
    if (this.#isOpen) this.#transport.resume()
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    // Before the answer, the handshake reports that the transport broke: it may have read a refusal.
    this.#transport.write(chunk, (error) => { if (error == null || this.#isOpen) callback(error) })
  }

  override _final (callback: (error?: Error | null) => void): void {
    const end = () => { this.#transport.end(callback) }
    if (this.#isOpen) end()
    else this.#waitingEnd = end
  }

  override _destroy (error: Error | null, callback: (error?: Error | null) => void): void {
    this.#transport.destroy()
    callback(error)
  }
}
