// Runs the properties of test/fuzz in turn, with ever new seeds: `npm run fuzz [-- --seconds 600] [--seed N] [name…]`.
// They run in a process of their own, so that one that hangs or ends the process is named as well.

import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** A property that keeps its process busy for so long, without a turn of the event loop, hangs. */
const SILENCE_MS = 120_000

const child = fork(fileURLToPath(new URL('../test/fuzz/long-run.ts', import.meta.url)), process.argv.slice(2), {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  // The loader that tap takes TypeScript with, on every version of Node, and as tap has it: types are checked
  // elsewhere, and Node 26 warns of how the loader is registered.
  execArgv: ['--no-warnings', '--import=@tapjs/typescript/import'],
  env: { ...process.env, TS_NODE_TRANSPILE_ONLY: '1' }
})

let current = ''
let watchdog
child.on('message', (repeatCommand) => {
  current = repeatCommand
  clearTimeout(watchdog)
  watchdog = setTimeout(() => {
    console.error(`\nNothing has been heard for ${SILENCE_MS / 1000} s.`)
    child.kill('SIGKILL')
  }, SILENCE_MS)
})
child.on('exit', (code, signal) => {
  clearTimeout(watchdog)
  if (code === null) console.error(`\nEnded by ${signal}. To repeat it: ${current}`)
  process.exitCode = code ?? 1
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
