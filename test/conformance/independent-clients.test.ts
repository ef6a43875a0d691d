import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { plainEnvironment, Program } from '../helpers/program.ts'
import { startServer } from './server.ts'

// The main cases of RFC 8441 once more, by clients that share no code with Node: python3-h2, and golang.org/x/net/http2. Each
// prints a line for each case, and `close` when the server is to close.

const clients = fileURLToPath(new URL('clients', import.meta.url))
const DEADLINE_MS = 50_000

// Without a cache, Go builds for a while.
t.setTimeout(4 * DEADLINE_MS)

function firstThere (...paths: string[]): string | undefined {
  return paths.find((path) => existsSync(path))
}

const python = firstThere('/usr/bin/python3')
const go = firstThere('/usr/local/go/bin/go', '/usr/bin/go')

/** What `make` gives back; where it fails, why, for the reason of a skipped test. */
function attempt<Result> (make: () => Result): Result | string {
  try {
    return make()
  } catch (error) {
    return String((error as { stderr?: Buffer }).stderr ?? error).trim().split('\n').at(-1) ?? 'unknown'
  }
}

/** @param cases how many there are */
async function runCases (t: Test, cases: number, command: string, args: string[]): Promise<void> {
  const app = await startServer(t, { relay: { closeGrace: 1000 } })
  const { port } = app.server.address() as AddressInfo
  const program = new Program(command, [...args, String(port)])
  t.teardown(async () => await program.stop('SIGKILL'))
  await program.line((line) => line === 'close', DEADLINE_MS)
  await app.close()
  t.equal(await program.end(DEADLINE_MS), 0, program.output)
  const results = program.lines.filter((line) => line !== 'close')
  for (const line of results) t.match(line, /^ok /)
  t.equal(results.length, cases)
}

function lackOfPython (): string | false {
  if (python === undefined) return 'needs /usr/bin/python3'
  const result = attempt(() => execFileSync(python, ['-c', 'import h2'], { stdio: 'pipe' }))
  return typeof result === 'string' && `needs Debian's python3-h2: ${result}`
}

t.test('python3-h2', { skip: lackOfPython() }, async (t) => {
  await runCases(t, 20, python!, [join(clients, 'h2_client.py')])
})

/** Builds the client of Go in `directory`. @returns why it cannot be had, or false */
function lackOfGo (directory: string): string | false {
  if (go === undefined) return 'needs go'
  const options = { cwd: join(clients, 'go'), env: plainEnvironment, stdio: 'pipe' } as const
  const result = attempt(() => execFileSync(go, ['build', '-o', join(directory, 'client'), '.'], options))
  return typeof result === 'string' && `cannot be built here: ${result}`
}

const directory = mkdtempSync(join(tmpdir(), 'relay-conformance-'))
t.teardown(() => rmSync(directory, { recursive: true }))

t.test('golang.org/x/net/http2', { skip: lackOfGo(directory) }, async (t) => {
  await runCases(t, 21, join(directory, 'client'), [])
})
