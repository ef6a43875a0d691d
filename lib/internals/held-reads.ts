import type { Duplex } from 'node:stream'
import { WaitingBytes } from '../util/waiting-bytes.ts'

/**
 * A paused stream still buffers data: up to its `highWaterMark`, and over HTTP/2 up to its window. In small chunks, one byte
 * costs about a hundred bytes, or pins the memory it was read into. This class collects the data in one piece instead.
 *
 * Every reader passes data to a stream through its `push`. If a future Node does not, the tunnel is only paused.
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
      // False stops further reads.
      return false
    }
    // Push on any `resume`: a stream that gets no push is never read again.
    tunnel.on('resume', () => this.#pass())
  }

  /** Pushes the waiting data, so that the tunnel delivers it next. */
  #pass (): void {
    if (this.#waiting.length > 0) this.#push(this.#waiting.take())
  }
}

const held = new WeakSet<Duplex>()

/** Pauses a tunnel until it is resumed. Data that still arrives waits in one piece of memory. */
export function holdReads (tunnel: Duplex): void {
  tunnel.pause()
  if (held.has(tunnel)) return
  held.add(tunnel)
  // eslint-disable-next-line no-new
  new HeldReads(tunnel)
}
