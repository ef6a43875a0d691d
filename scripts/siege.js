// Attacks a relay in every way that one client without a token has, while another one uses it:
// `npm run siege [-- --seconds 10] [--only text]`. Needs Linux and the built package. Prints for each attack how many of the
// other one's tries failed, how long they took against a time without attack, and the relay's memory before, during and after.

import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const child = fork(fileURLToPath(new URL('../test/siege/long-run.ts', import.meta.url)), process.argv.slice(2), {
  cwd: fileURLToPath(new URL('..', import.meta.url)),
  // As scripts/fuzz.js loads TypeScript.
  execArgv: ['--no-warnings', '--import=@tapjs/typescript/import'],
  env: { ...process.env, TS_NODE_TRANSPILE_ONLY: '1' }
})
child.on('exit', (code) => { process.exitCode = code ?? 1 })
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal))
