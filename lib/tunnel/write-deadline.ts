import type { Tunnel } from './tunnel.ts'

/** Tells when a tunnel has taken nothing at all for too long; one that is merely slow takes something now and then. */
export class WriteDeadline {
  readonly #tunnel: Tunnel
  /** Since when it has taken nothing, by the hub's clock. */
  #since: number | undefined
  #taken = 0
  #queued = 0

  constructor (tunnel: Tunnel) {
    this.#tunnel = tunnel
  }

  /**
   * Called once per tick.
   * @param written all bytes that were written to the tunnel
   * @param timeout milliseconds
   */
  isOver (written: number, now: number, timeout: number): boolean {
    const { waiting } = this.#tunnel
    if (waiting === 0) {
      this.#since = undefined
      return false
    }
    const taken = written - waiting
    // Of a single large write the system takes some, too.
    const queued = this.#tunnel.systemQueueSize
    if (this.#since === undefined || taken !== this.#taken || queued !== this.#queued) this.#since = now
    this.#taken = taken
    this.#queued = queued
    return now - this.#since > timeout
  }
}
