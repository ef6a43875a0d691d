import type { HubOptions } from './hub-options.ts'

/** Keepalives of many peers that came at once are spread by this part of the interval. */
const SPREAD = 0.1

/** When an idle tunnel is due a sign of life from the relay. The client's counterpart is lib/client/connection/liveness.ts. */
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
   * @param bytesOut all bytes that were sent to the peer
   * @param receivedAt when the last byte came from it
   * @returns whether to send one now
   */
  isDue (now: number, bytesOut: number, receivedAt: number): boolean {
    if (now < this.#dueAt) return false
    // Not needed where bytes went both ways since the last time.
    const isBusy = bytesOut !== this.#bytesOut && now - receivedAt < this.#interval
    this.#bytesOut = bytesOut
    this.#dueAt = this.#next(now)
    return !isBusy
  }

  #next (now: number): number {
    return now + this.#interval * (1 - SPREAD + 2 * SPREAD * Math.random())
  }
}
