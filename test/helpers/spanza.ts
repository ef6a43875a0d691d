import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { Program } from './program.ts'

// The built command, as users run it: `npm run build` makes it.
export const SPANZA = fileURLToPath(new URL('../../dist/cli/spanza.js', import.meta.url))

/** How long it may take to do what a test awaits, in milliseconds. */
export const DEADLINE = 20_000

/** Runs it until the test ends. */
export function spanza (t: Test, args: string[], env: NodeJS.ProcessEnv = {}): Program {
  const program = new Program(process.execPath, [SPANZA, ...args], { env: { SPANZA_TOKEN: '', no_proxy: '', NO_PROXY: '*', ...env }, name: 'spanza' })
  t.teardown(() => program.stop('SIGKILL'))
  return program
}

export const listen = ['--listen', '127.0.0.1:0']

/** The lines of a program's standard error among its output. */
export const errorsOf = (program: Program) => program.output.slice(program.lines.join('\n').length)
