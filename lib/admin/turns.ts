import { once } from 'node:events'
import type { FastifyReply } from 'fastify'

/**
 * Lets the answers to many requests be made one in each turn of the event loop, with whatever else goes on in the process in between.
 * A client that pipelines sends hundreds in one chunk, and a list of many peers takes some milliseconds.
 */
export class Turns {
  #last: Promise<unknown> = Promise.resolve()

  async take ({ raw }: FastifyReply): Promise<void> {
    // Behind others on its connection (HTTP/1.1 pipelining), it would wait in memory until these have been taken.
    if (raw.socket === null) await once(raw, 'socket')
    const turn = this.#last.then(async () => await new Promise((resolve) => setImmediate(resolve)))
    this.#last = turn
    await turn
  }
}
