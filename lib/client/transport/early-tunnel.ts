import { Duplex } from 'node:stream'

/**
 * A bare tunnel in use before the relay has answered. What is written goes on at once, held back by the transport
 * alone; reading begins behind the 101. An end waits for the 101 as well: an HTTP server takes the end of a request's
 * stream for a client that has left.
 */
export class EarlyTunnel extends Duplex {
  readonly #transport: Duplex
  #isOpen = false
  #waitingEnd: (() => void) | undefined

  /** @param transport on which the request has been written, and nobody else writes any more */
  constructor (transport: Duplex) {
    super({ allowHalfOpen: true })
    this.#transport = transport
  }

  /** The relay has agreed, and what is read from the transport is the tunnel's. Otherwise: `destroy(error)`. */
  open (): void {
    const transport = this.#transport
    this.#isOpen = true
    transport.on('data', (chunk) => { if (!this.push(chunk)) transport.pause() })
    transport.on('end', () => this.push(null))
    transport.on('error', (error) => this.destroy(error))
    // When both sides have ended, what waits here is still to be read.
    transport.on('close', () => { if (!transport.readableEnded) this.destroy() })
    this.#waitingEnd?.()
  }

  override _read (): void {
    if (this.#isOpen) this.#transport.resume()
  }

  override _write (chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    // Before the answer a transport that breaks is the handshake's to report, which may have read a refusal.
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
