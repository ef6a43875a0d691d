import { existsSync } from 'node:fs'
import t from 'tap'
import { besiege, failuresOf, fronts, type Front } from './siege.ts'

// A short form of `npm run siege`, over the built package. How long a try takes is not tested here, for that says more about the machine;
// that nobody is refused, cut off or left without an answer is.

const skip = existsSync('/proc/self/status') ? false : 'needs /proc, and loopback addresses beyond 127.0.0.1'

// Processes are started and attacks are made one after the other.
t.setTimeout(240_000)

for (const front of Object.keys(fronts) as Front[]) {
  t.test(`no attack of one client over ${front} shuts others out`, { skip, timeout: 120_000 }, async (t) => {
    const outcomes = await besiege({ attackMs: 500, calmMs: 0, recoveryMs: 100, patienceMs: 20_000, only: `${front}: ` })
    for (const { attack, attacked, count } of outcomes) {
      t.ok(attacked.made > 0 && count > 0, `${attack}: ${count} times`)
      t.equal(failuresOf(attacked), 0, `${attack}: every try gets through`, { failed: attacked.failed })
    }
  })
}
