import type { HubOptions } from './hub-options.ts'

/** Keepalive times vary by this fraction, so that peers that connected together do not stay in step. */
const SPREAD = 0.1

/** Decides when an idle tunnel needs a keepalive. The client's counterpart is lib/client/connection/liveness.ts. */
export class Keepalive {
  readonly #interval: number
  #dueAt: number
  #bytesOut = 0

  /** @param now by the hub's clock, in milliseconds */
  constructor ({ keepaliveInterval }: Required<HubOptions>, now: number) {
    this.#interval = keepaliveInterval
    this.#dueAt = this.#next(now)
  }

  /**
   * Called once per tick.
   * @param bytesOut total bytes sent to the peer
   * @param receivedAt when the last byte arrived from the peer
   * @returns true if a keepalive must be sent now
   */
  isDue (now: number, bytesOut: number, receivedAt: number): boolean {
    if (now < this.#dueAt) return false
    // No keepalive is needed if bytes went both ways since the last one.
    const isBusy = bytesOut !== this.#bytesOut && now - receivedAt < this.#interval
    this.#bytesOut = bytesOut
    this.#dueAt = this.#next(now)
    return !isBusy
  }

  #next (now: number): number {
    return now + this.#interval * (1 - SPREAD + 2 * SPREAD * Math.random())
  }
}
