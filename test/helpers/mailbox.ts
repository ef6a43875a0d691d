/** Things that arrive at some time, to be waited for in order. */
export class Mailbox<T> {
  readonly all: T[] = []
  readonly #waiting: Array<(item: T) => void> = []
  #taken = 0

  push (item: T): void {
    this.all.push(item)
    const waiting = this.#waiting.shift()
    if (waiting === undefined) return
    this.#taken++
    waiting(item)
  }

  /** The next one that was not taken yet, when it is there. */
  async next (): Promise<T> {
    if (this.#taken < this.all.length) return this.all[this.#taken++]!
    return new Promise((resolve) => { this.#waiting.push(resolve) })
  }

  /** So many next ones. */
  async take (count: number): Promise<T[]> {
    const items: T[] = []
    while (items.length < count) items.push(await this.next())
    return items
  }
}
