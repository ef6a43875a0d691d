// Drives programs that others made against the relay, and apps that others' frameworks make with it: `npm run test:interop [-- test
// files …]`. They are built with Go, or installed with pip or npm, at the versions below, into a cache folder; what cannot be had is
// skipped. Needs the built package. Ends with a table of what was measured.

import { execFileSync, spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
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
  { name: 'wireguard-go', package: 'golang.zx2c4.com/wireguard', version: 'v0.0.0-20260522210424-ecfc5a8d5446' },
  {
    name: 'nestjs',
    version: '12.5.1',
    npm: { '@nestjs/core': '12.5.1', '@nestjs/common': '12.5.1', '@nestjs/platform-fastify': '12.5.0', 'reflect-metadata': '0.2.2', rxjs: '7' }
  },
  {
    name: 'fastify-cli',
    version: '8.0.2',
    npm: {
      'fastify-cli': '8.0.2', '@fastify/autoload': '6.5.0', '@fastify/sensible': '6', 'fastify-tsconfig': '3', typescript: '6.0.3', '@types/node': '20', '@types/ws': '8'
    }
  },
  { name: 'socket.io', version: '4.8.4', npm: { 'socket.io': '4.8.4', 'socket.io-client': '4.8.4' } },
  { name: 'vite', version: '8.3.8', npm: { vite: '8.3.8', '@fastify/middie': '9.3.6' } },
  { name: 'mercurius', version: '16.10.1', npm: { mercurius: '16.10.1', graphql: '16' } }
]

const given = process.argv.slice(2)
const files = given.length > 0
  ? given
  : readdirSync(join(ROOT, TESTS)).filter((name) => name.endsWith('.interop.ts')).map((name) => join(TESTS, name))

// Apps are what one of the files drives, programs what the others do.
const built = programs.filter(({ npm }) => files.some((file) => file.endsWith('apps.interop.ts') === (npm !== undefined))).filter(build)
for (const program of built.filter(({ npm }) => npm)) addPackage(program)
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
    INTEROP_APPS: JSON.stringify(Object.fromEntries(built.filter(({ npm }) => npm).map((program) => [program.name, folder(program)]))),
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
  console.log(program.pip || program.npm ? `Installing ${name} ${version} …` : `Building ${name} ${version}, which takes minutes …`)
  mkdirSync(CACHE, { recursive: true })
  const bin = mkdtempSync(join(CACHE, 'build-'))
  try {
    if (program.pip) run('python3', ['-m', 'pip', 'install', '--quiet', '--no-deps', '--target', bin, `${name}==${version}`])
    else if (program.npm) npmInstall(program, bin)
    else goInstall(program, bin)
    renameSync(bin, folder(program))
    return true
  } catch (error) {
    rmSync(bin, { recursive: true, force: true })
    console.log(`Without ${name}: ${error.stderr?.trim().split('\n').slice(-3).join('\n  ') || error.message}`)
    return false
  }
}

/** What the app needs, and what this package does. */
function npmInstall ({ npm }, bin) {
  const { dependencies, devDependencies } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  writeFileSync(join(bin, 'package.json'), JSON.stringify({ private: true, dependencies: { ...dependencies, fastify: devDependencies.fastify, ...npm } }))
  run('npm', ['install', '--no-audit', '--no-fund', '--prefer-offline', '--prefix', bin])
}

/** Puts the built package where the app finds it, as npm would, and says what is there. */
function addPackage ({ name, npm, ...program }) {
  const modules = join(folder({ name, ...program }), 'node_modules')
  const own = join(modules, 'fastify-spanza-relay')
  rmSync(own, { recursive: true, force: true })
  for (const path of ['package.json', 'dist']) cpSync(join(ROOT, path), join(own, path), { recursive: true })
  const versions = ['fastify', ...Object.keys(npm)].map((name) => `${name} ${JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8')).version}`)
  console.log(`${name}: ${versions.join(', ')}`)
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
