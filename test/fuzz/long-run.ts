// The long form of the tests in this directory. scripts/fuzz.js starts it and hears how each batch can be repeated.

import { setImmediate } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import fc, { type IRawProperty } from 'fast-check'
import { answerFuzzes } from './answers.ts'
import { framingFuzzes } from './framing.ts'
import { MAX_PRINTED, newSeed, repeatCommand, runBatch, Scope, type Fuzz } from './fuzz.ts'
import { routingFuzzes } from './routing.ts'
import { sendQueueFuzzes } from './send-queue.ts'
import { tableFuzzes } from './tables.ts'
import { upgradeFuzzes } from './upgrade.ts'
import { valueFuzzes } from './values.ts'

const PROGRESS_MS = 30_000

const all: readonly Fuzz[] = [
  ...framingFuzzes, ...tableFuzzes, ...sendQueueFuzzes, ...routingFuzzes, ...valueFuzzes, ...upgradeFuzzes, ...answerFuzzes
]

const { values, positionals } = parseArgs({
  options: { seconds: { type: 'string', default: '600' }, seed: { type: 'string' } },
  allowPositionals: true
})
const seconds = Number(values.seconds)
const seed = values.seed === undefined ? newSeed() : Number(values.seed)
const chosen = all.filter(({ name }) => positionals.length === 0 || positionals.some((start) => name.startsWith(start)))
if (!(seconds > 0) || !Number.isInteger(seed) || chosen.length === 0) {
  console.error(`usage: npm run fuzz [-- --seconds 600] [--seed N] [name…], with the names, or how they begin:\n  ${all.map(({ name }) => name).join('\n  ')}`)
  process.exit(2)
}

await run()

async function run (): Promise<void> {
  const scope = new Scope()
  const executions = new Map<string, number>()
  let current = ''
  let input: unknown
  const stop = new AbortController()

  const startedAt = performance.now()
  const elapsed = () => (performance.now() - startedAt) / 1000
  const report = () => {
    const total = [...executions.values()].reduce((sum, count) => sum + count, 0)
    const heap = Math.round(process.memoryUsage().heapUsed / 2 ** 20)
    const rss = Math.round(process.memoryUsage.rss() / 2 ** 20)
    console.log(`${elapsed().toFixed(0)} s: ${total} executions, ${(total / elapsed()).toFixed(0)}/s, heap ${heap} MiB, resident ${rss} MiB`)
    for (const [name, count] of executions) console.log(`  ${name.padEnd(28)} ${count}`)
  }
  const finish = (code: number) => {
    report()
    process.exit(code)
  }
  process.on('uncaughtException', (error) => {
    console.error(`\nNobody caught this:\n${error.stack}\nThe last input: ${fc.stringify(input).slice(0, MAX_PRINTED)}\n\nTo repeat it: ${current}`)
    finish(1)
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort())

  console.log(`seed ${seed}, ${seconds} s, Node ${process.version}`)
  const properties = new Map<Fuzz, IRawProperty<unknown>>()
  for (const fuzz of chosen) {
    const property = await fuzz.prepare(scope)
    const runProperty = property.run.bind(property)
    property.run = (value) => {
      input = value
      return runProperty(value)
    }
    properties.set(fuzz, property)
    executions.set(fuzz.name, 0)
  }

  let reportedAt = 0
  for (let batch = 0; !stop.signal.aborted && elapsed() < seconds; batch++) {
    for (const [fuzz, property] of properties) {
      // A turn of the event loop, which a property without any waiting does not make.
      await setImmediate()
      if (stop.signal.aborted || elapsed() >= seconds) break
      const batchSeed = (seed + batch) | 0
      current = repeatCommand(fuzz, batchSeed)
      process.send!(current)
      const { runs, failure } = await runBatch(fuzz, property, batchSeed)
      executions.set(fuzz.name, executions.get(fuzz.name)! + runs)
      if (failure !== undefined) {
        console.error(`\n${fuzz.name}: ${fuzz.title}\n${failure}\n`)
        finish(1)
      }
      if (elapsed() * 1000 - reportedAt < PROGRESS_MS) continue
      reportedAt = elapsed() * 1000
      report()
    }
  }
  await scope.end()
  console.log('\nNothing was found.')
  finish(0)
}
