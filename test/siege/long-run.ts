import { parseArgs } from 'node:util'
import { besiege, failuresOf, quantile, type Outcome } from './siege.ts'

// The long form; see scripts/siege.js.

const { values } = parseArgs({
  options: { seconds: { type: 'string', default: '10' }, only: { type: 'string', default: '' } }
})

const columns = [15, 50, 9, 7, 7, 9, 9, 22]

function row (...cells: Array<string | number>): void {
  console.log(cells.map((cell, i) => i < 2 ? String(cell).padEnd(columns[i]!) : String(cell).padStart(columns[i]!)).join(' '))
}

function show ({ front, attack, count, calm, attacked, memory }: Outcome): void {
  row(front, attack, count, attacked.made, failuresOf(attacked), quantile(calm.durations, 0.99).toFixed(0), quantile(attacked.durations, 0.99).toFixed(0),
    [memory.before, memory.most, memory.after].map((mib) => mib.toFixed(0)).join(' / '))
  for (const [what, times] of Object.entries(attacked.failed)) console.log(`${' '.repeat(columns[0]! + 1)}! ${times} times: ${what}`)
}

console.log(`A victim with ${process.version} opens a tunnel and gets a datagram back, 20 times a second; one client without a token attacks for ${values.seconds} s.\n`)
row('front', 'attack', 'count', 'tries', 'failed', 'p99 calm', 'p99 ms', 'memory MiB')
const outcomes = await besiege({ attackMs: Number(values.seconds) * 1000, calmMs: 5000, only: values.only, onOutcome: show })
const failed = outcomes.reduce((sum, { attacked }) => sum + failuresOf(attacked), 0)
console.log(`\n${outcomes.length} attacks, ${outcomes.reduce((sum, { attacked }) => sum + attacked.made, 0)} tries, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
