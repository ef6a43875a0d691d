import { existsSync } from 'node:fs'
import t from 'tap'
import { besiege, failuresOf, fronts, type Front } from './siege.ts'

// A short form of `npm run siege`, over the built package.

const skip = existsSync('/proc/self/status') ? false : 'needs /proc, and loopback addresses beyond 127.0.0.1'

for (const front of Object.keys(fronts) as Front[]) {
  t.test(`no attack of one client over ${front} shuts others out`, { skip }, async (t) => {
    const outcomes = await besiege({ attackMs: 700, calmMs: 300, only: `${front}: ` })
    for (const { attack, attacked, count } of outcomes) {
      t.ok(attacked.made > 0 && count > 0, `${attack}: ${count} times`)
      t.equal(failuresOf(attacked), 0, `${attack}: every try gets through`, { failed: attacked.failed })
    }
  })
}
