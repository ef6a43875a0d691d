const LONGEST_TICK_FACTOR = 3

/**
 * The hub's time, in milliseconds, read once per tick instead of once per packet. It stands still while the process
 * does: after a suspension, nobody is taken for dead because of packets that wait unread in the kernel.
 */
export class Clock {
  now = 0
  readonly tickLength: number
  #readAt = performance.now()

  /** @param tickLength milliseconds between two calls of `tick` */
  constructor (tickLength: number) {
    this.tickLength = tickLength
  }

  tick (): void {
    const read = performance.now()
    this.now += Math.min(read - this.#readAt, this.tickLength * LONGEST_TICK_FACTOR)
    this.#readAt = read
  }
}
