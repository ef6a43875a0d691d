import type { Duplex } from 'node:stream'
import { WaitingBytes } from '../util/waiting-bytes.ts'

/**
 * A stream that is paused takes in some more: what has been read already, up to its `highWaterMark`, and over HTTP/2 whatever its
 * window allows. In the pieces it comes in, a single byte takes some hundred, or keeps the memory it was read into. Here it
 * waits in one piece instead.
 *
 * All that reads for a stream hands it over by calling its `push`. Should a Node come that does not, a tunnel is merely paused.
 */
class HeldReads {
  readonly #push: Duplex['push']
  readonly #waiting = new WaitingBytes()

  constructor (tunnel: Duplex) {
    this.#push = tunnel.push.bind(tunnel)
    tunnel.push = (chunk: Buffer | null) => {
      if (chunk === null || chunk.length === 0 || !tunnel.isPaused()) {
        this.#pass()
        return this.#push(chunk)
      }
      this.#waiting.add(chunk)
      // Asks for no more.
      return false
    }
    // Whoever lets it flow again. A stream to which nothing is pushed would never be read again.
    tunnel.on('resume', () => this.#pass())
  }

  /** Makes what has waited the next that is read from the tunnel. */
  #pass (): void {
    if (this.#waiting.length > 0) this.#push(this.#waiting.take())
  }
}

const held = new WeakSet<Duplex>()

/** Pauses a tunnel until it is resumed, and lets what still comes out of it wait in one piece of memory. */
export function holdReads (tunnel: Duplex): void {
  tunnel.pause()
  if (held.has(tunnel)) return
  held.add(tunnel)
  // eslint-disable-next-line no-new
  new HeldReads(tunnel)
}
