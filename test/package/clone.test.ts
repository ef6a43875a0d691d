import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { manifest, ROOT } from '../helpers/packed.ts'
import { plainEnvironment } from '../helpers/program.ts'

// What who has cloned the repository gets by `npm pack` at once, without a build before.

const missing = whyNot()

t.setTimeout(180_000)

t.test('npm pack works in a fresh clone', { skip: missing ?? false }, (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'spanza-clone-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const clone = join(folder, 'clone')
  // Committed files only; what is changed and not committed is none of the clone's.
  run(folder, 'git', ['clone', '--quiet', '--depth=1', `file://${ROOT}`, clone])
  t.notOk(existsSync(join(clone, 'dist')))
  // Its `prepack` installs and builds. What would be downloaded is there.
  copyModules(clone)
  run(clone, 'npm', ['pack', '--pack-destination', folder])
  const listed = run(folder, 'tar', ['-tzf', `${manifest.name}-${manifest.version}.tgz`]).split('\n')
  for (const path of ['dist/index.js', 'dist/index.d.ts', 'dist/cli/spanza.js', 'dist/admin/page/index.html', 'dist/admin/page/uPlot.iife.min.js', 'README.md', 'LICENSE']) {
    t.ok(listed.includes(`package/${path}`), path)
  }
  t.equal(run(clone, 'git', ['status', '--porcelain']), '', 'and leaves nothing behind that git would see')
  t.end()
})

/** Links where it can, for it is much. What npm writes into is a copy. */
function copyModules (clone: string): void {
  const to = join(clone, 'node_modules')
  try {
    run(ROOT, 'cp', ['-al', 'node_modules', to])
  } catch {
    rmSync(to, { recursive: true, force: true })
    run(ROOT, 'cp', ['-a', 'node_modules', to])
  }
  rmSync(join(to, '.package-lock.json'), { force: true })
}

function run (cwd: string, command: string, args: string[]): string {
  // By way of `env`: tap loads itself into each Node that a test starts, and TypeScript 7 does not take that.
  const { status, error, stdout, stderr } = spawnSync('env', ['NODE_OPTIONS=', command, ...args], {
    cwd, env: plainEnvironment, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 150_000
  })
  if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}\n${stdout}\n${stderr}`)
  return stdout
}

function whyNot (): string | undefined {
  if (!existsSync(join(ROOT, '.git'))) return 'this is no git repository'
  const asked = spawnSync('git', ['-C', ROOT, 'rev-parse', '--verify', 'HEAD'], { encoding: 'utf8' })
  if (asked.error !== undefined) return 'git is not installed'
  return asked.status === 0 ? undefined : `git does not read this repository: ${asked.stderr.split('\n', 1)[0]}`
}
