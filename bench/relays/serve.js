import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'

// What every relay of the benches does: it listens, tells where, and answers for what it has used.

/** What the bench has given: see the files here. */
export const settings = JSON.parse(process.argv[2])

/** Options of a TLS server, where one was asked for. */
export const tls = settings.tls && {
  cert: readFileSync(settings.tls.cert),
  key: readFileSync(settings.tls.key)
}

/**
 * Tells the bench that `server` listens.
 * @param answers to further questions, by name
 */
export function ready (server, answers = {}) {
  const all = { ...common, ...answers }
  process.on('message', async (question) => process.send(await all[question]()))
  process.send({ port: server.address().port })
}

const common = {
  stop: () => process.exit(),
  cpu: () => process.cpuUsage(),
  async memory () {
    // Twice, with a turn between: what finalizers let go is only found by the second.
    for (let i = 0; i < 2; i++) {
      globalThis.gc()
      await sleep(50)
    }
    return process.memoryUsage()
  }
}
