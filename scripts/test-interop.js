// Drives programs that others made against the relay: `npm run test:interop [-- test files …]`. They are built with Go, or
// installed with pip, at the versions below, into a cache folder; what cannot be built is skipped. Needs the built package. Ends with a table
// of what was measured.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const TAP = join(ROOT, 'node_modules/tap/dist/esm/run.mjs')
const TESTS = 'test/interop'
const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'fastify-spanza-relay')

const programs = [
  { name: 'xray', package: 'github.com/xtls/xray-core/main', version: 'v1.260327.0' },
  { name: 'sing-box', package: 'github.com/sagernet/sing-box/cmd/sing-box', version: 'v1.14.1' },
  // The Go module proxy does not hand ProxyGuard out; eduVPN's library for Python has it within.
  { name: 'eduvpn-common', pip: true, version: '5.0.2' },
  { name: 'wireguard-go', package: 'golang.zx2c4.com/wireguard', version: 'v0.0.0-20260522210424-ecfc5a8d5446' }
]

const given = process.argv.slice(2)
const files = given.length > 0
  ? given
  : readdirSync(join(ROOT, TESTS)).filter((name) => name.endsWith('.interop.ts')).map((name) => join(TESTS, name))

const built = programs.filter(build)
const directory = mkdtempSync(join(tmpdir(), 'spanza-interop-'))
const figures = join(directory, 'figures')
const { status } = spawnSync(process.execPath, [TAP, '--disable-coverage', '--jobs=1', '--timeout=300', ...files], {
  cwd: ROOT,
  stdio: ['ignore', 'inherit', 'inherit'],
  env: {
    ...process.env,
    PATH: [...built.map(folder), process.env.PATH].join(delimiter),
    PYTHONPATH: built.filter(({ pip }) => pip).map(folder).join(delimiter),
    INTEROP_PROGRAMS: JSON.stringify(built.map(({ name }) => name)),
    INTEROP_FIGURES: figures
  }
})
printFigures()
rmSync(directory, { recursive: true })
process.exitCode = status ?? 1

function folder ({ name, version }) {
  return join(CACHE, `${name}@${version}`)
}

/** Whether the program is there; says why not. */
function build (program) {
  const { name, version } = program
  if (existsSync(folder(program))) return true
  console.log(program.pip ? `Installing ${name} ${version} …` : `Building ${name} ${version}, which takes minutes …`)
  mkdirSync(CACHE, { recursive: true })
  const bin = mkdtempSync(join(CACHE, 'build-'))
  try {
    if (program.pip) run('python3', ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', bin, `${name}==${version}`])
    else goInstall(program, bin)
    renameSync(bin, folder(program))
    return true
  } catch (error) {
    rmSync(bin, { recursive: true, force: true })
    console.log(`Without ${name}: ${error.stderr?.trim().split('\n').slice(-3).join('\n  ') || error.message}`)
    return false
  }
}

function goInstall ({ name, version, ...program }, bin) {
  run('nice', ['-n', '19', 'go', 'install', `${program.package}@${version}`], {
    GOBIN: bin, GOFLAGS: `${process.env.GOFLAGS ?? ''} -p=1`.trim(), CGO_ENABLED: '0'
  })
  const [binary] = readdirSync(bin) // named as its package is
  renameSync(join(bin, binary), join(bin, name))
}

function run (command, args, env = {}) {
  execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: 3_600_000, env: { ...process.env, ...env } })
}

function printFigures () {
  if (!existsSync(figures)) return console.log('\nNothing was measured.')
  const versions = new Map(programs.map(({ name, version }) => [name, version]))
  console.log('\n| client | transport | result |\n|---|---|---|')
  for (const line of readFileSync(figures, 'utf8').trim().split('\n')) {
    const { client, transport, result } = JSON.parse(line)
    console.log(`| ${client} ${versions.get(client) ?? ''} | ${transport} | ${result} |`)
  }
}
