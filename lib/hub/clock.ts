const LONGEST_TICK_FACTOR = 3

/**
 * The hub's time in milliseconds, read once per tick instead of once per packet. It stops while the process is
 * suspended. After resuming, peers are not timed out while their packets still wait unread in the kernel.
 */
export class Clock {
  now = 0
  readonly tickLength: number
  #readAt = performance.now()

  /** @param tickLength milliseconds between calls of `tick` */
  constructor (tickLength: number) {
    this.tickLength = tickLength
  }

  tick (): void {
    const read = performance.now()
    this.now += Math.min(read - this.#readAt, this.tickLength * LONGEST_TICK_FACTOR)
    this.#readAt = read
  }
}
