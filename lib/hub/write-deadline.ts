import type { Duplex } from 'node:stream'
import { WebSocketStream } from '../framing/websocket-stream.ts'
import { writeQueueSize } from './plain-socket.ts'

/** Tells when a stream has taken nothing at all for too long; one that is merely slow takes something now and then. */
export class WriteDeadline {
  readonly #stream: Duplex
  /** Since when it has taken nothing, by the hub's clock. */
  #since: number | undefined
  #taken = 0
  #queued = 0

  constructor (stream: Duplex) {
    this.#stream = stream
  }

  /**
   * Called once per tick.
   * @param written all bytes that were written to the stream
   * @param timeout milliseconds
   */
  isOver (written: number, now: number, timeout: number): boolean {
    const waiting = waitingIn(this.#stream)
    if (waiting === 0) {
      this.#since = undefined
      return false
    }
    const taken = written - waiting
    // Of a single large write the system takes some, too.
    const queued = writeQueueSize(this.#stream)
    if (this.#since === undefined || taken !== this.#taken || queued !== this.#queued) this.#since = now
    this.#taken = taken
    this.#queued = queued
    return now - this.#since > timeout
  }
}

function waitingIn (stream: Duplex): number {
  return stream instanceof WebSocketStream ? stream.waiting : stream.writableLength
}
