/** Over less than this, what comes in bursts would look like more or less than it is. */
const MIN_SECONDS = 0.9

/** What counters that are read again and again grow by in a second. */
export class Rates {
  #before = new Map()
  #now = new Map()
  #time

  /** Begins with the counters of another time, in milliseconds; those that are not read this time are forgotten. */
  begin (time) {
    if (time === this.#time) return this
    this.#before = this.#now
    this.#now = new Map()
    this.#time = time
    return this
  }

  /** @returns how much each counter has grown by in a second, the same object until there is something new; undefined for what was not read the last time */
  of (key, { bytesIn, bytesOut, drops }) {
    const counters = { bytesIn, bytesOut, drops }
    const before = this.#before.get(key)
    const seconds = before && (this.#time - before.time) / 1000
    if (seconds < MIN_SECONDS) {
      this.#now.set(key, before)
      return before.rates
    }
    const rates = before && Object.fromEntries(Object.entries(counters).map(
      // The sum of a channel shrinks when a peer leaves.
      ([name, count]) => [name, Math.max(0, count - before.counters[name]) / seconds]))
    this.#now.set(key, { time: this.#time, counters, rates })
    return rates
  }

  /** What `of` has returned for this key the last time. */
  get (key) {
    return this.#now.get(key)?.rates
  }
}

export const keyOfChannel = ({ kind, scope, name }) => JSON.stringify([kind, scope, name])

/** Of what a peer sends to another one. */
export const keyOfPair = (peer, id) => JSON.stringify([keyOfPeer(peer), id])

export const keyOfPeer = ({ channel, id, attachedAt }) => JSON.stringify([channel.kind, channel.scope, channel.name, id, attachedAt])
