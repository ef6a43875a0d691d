import type { Duplex } from 'node:stream'
import { WaitingBytes } from './waiting-bytes.ts'

/**
 * A stream that is paused takes in some more: what has been read already, up to its `highWaterMark`, and over HTTP/2 whatever its
 * window allows. In the pieces it comes in, a single byte takes some hundred, or keeps the memory it was read into.
 */
class HeldReads {
  readonly #push: Duplex['push']
  readonly #waiting = new WaitingBytes()

  constructor (tunnel: Duplex) {
    this.#push = tunnel.push.bind(tunnel)
    tunnel.push = (chunk: Buffer | null) => {
      if (chunk === null || !tunnel.isPaused()) {
        this.pass()
        return this.#push(chunk)
      }
      this.#waiting.add(chunk)
      // Asks for no more.
      return false
    }
  }

  /** Makes what has waited the next that is read from the tunnel. */
  pass (): void {
    if (this.#waiting.length > 0) this.#push(this.#waiting.take())
  }
}

const held = new WeakMap<Duplex, HeldReads>()

/** Pauses a tunnel, and lets what still comes out of it wait in one piece of memory. */
export function holdReads (tunnel: Duplex): void {
  tunnel.pause()
  if (!held.has(tunnel)) held.set(tunnel, new HeldReads(tunnel))
}

/** Lets a tunnel flow again that may have been held. */
export function releaseReads (tunnel: Duplex): void {
  held.get(tunnel)?.pass()
  tunnel.resume()
}
