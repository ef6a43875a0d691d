import type { Tunnel } from './tunnel.ts'

/** Detects a tunnel that accepts no bytes at all for too long. A tunnel that is merely slow accepts some now and then. */
export class WriteDeadline {
  readonly #tunnel: Tunnel
  /** When it last accepted bytes, by the hub's clock. */
  #since: number | undefined
  #taken = 0
  #queued = 0

  constructor (tunnel: Tunnel) {
    this.#tunnel = tunnel
  }

  /**
   * Call it once per tick.
   * @param written all bytes written to the tunnel so far
   * @param now milliseconds, by the hub's clock
   * @param timeout milliseconds
   */
  isOver (written: number, now: number, timeout: number): boolean {
    const { waiting } = this.#tunnel
    if (waiting === 0) {
      this.#since = undefined
      return false
    }
    const taken = written - waiting
    // The system may take parts of a single large write.
    const queued = this.#tunnel.systemQueueSize
    if (this.#since === undefined || taken !== this.#taken || queued !== this.#queued) this.#since = now
    this.#taken = taken
    this.#queued = queued
    return now - this.#since > timeout
  }
}
