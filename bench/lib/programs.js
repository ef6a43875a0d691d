import { execFileSync, spawnSync } from 'node:child_process'
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

// What is not Node: compiled here, or Debian's packages.

// Where Debian has servers, and users do not look.
process.env.PATH = [process.env.PATH, '/usr/sbin'].join(delimiter)

const sources = fileURLToPath(new URL('../load/', import.meta.url))

/** A folder for this run, gone at its end. */
export const folder = mkdtempSync(join(tmpdir(), 'spanza-bench-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** Debian's packages with the programs that are measured beside the relay, and what the load generator needs. */
const packages = {
  gcc: ['gcc', 'libc6-dev'],
  haproxy: ['haproxy'],
  nginx: ['nginx', 'libnginx-mod-stream'],
  socat: ['socat'],
  taskset: ['util-linux'],
  iperf3: ['iperf3'],
  wg: ['wireguard-tools'],
  'wireguard-go': ['wireguard-go'],
  ip: ['iproute2'],
  ping: ['iputils-ping']
}

/** @param name of a program in PATH, or its absolute path */
export function hasProgram (name) {
  return process.env.PATH.split(delimiter).some((path) => isReadable(resolve(path, name), constants.X_OK))
}

export const hasNginxStream = () => hasProgram('nginx') && isReadable(nginxStreamModule)
export const nginxStreamModule = '/usr/lib/nginx/modules/ngx_stream_module.so'

/** Installs what is missing of Debian's packages, where that can be done. */
export function installPackages () {
  const missing = Object.keys(packages).filter((name) => !hasProgram(name)).flatMap((name) => packages[name])
  if (!hasNginxStream()) missing.push(...packages.nginx)
  if (!isReadable('/usr/include/openssl/ssl.h')) missing.push('libssl-dev')
  if (missing.length === 0) return
  if (process.getuid?.() !== 0 || !hasProgram('apt-get')) return console.log(`Not installed, and left out where they matter: ${missing.join(' ')}`)
  console.log(`Installing ${missing.join(' ')} …`)
  // With this run level, Debian starts no service that it installs.
  const env = { ...process.env, RUNLEVEL: '1', DEBIAN_FRONTEND: 'noninteractive' }
  spawnSync('apt-get', ['update', '-qq'], { env, stdio: 'ignore' })
  const { status, stderr } = spawnSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env, encoding: 'utf8' })
  if (status !== 0) console.log(`Could not be installed: ${stderr.trim().split('\n').at(-1)}`)
}

/**
 * Compiles the load generator and the splice(2) relay.
 * @returns why that cannot be done; undefined if it was
 */
export function compile () {
  if (process.platform !== 'linux') return `the load generator needs Linux, this is ${process.platform}`
  if (!hasProgram('gcc')) return 'the load generator needs gcc'
  try {
    gcc(loadPath, ['load.c', 'conn.c', 'framing.c'], ['-lssl', '-lcrypto'])
    gcc(splicePath, ['splice.c'])
  } catch (error) {
    return `the load generator cannot be compiled (it needs libssl-dev):\n${error.stderr}`
  }
}

export const loadPath = join(folder, 'load')
export const splicePath = join(folder, 'splice')

function gcc (output, files, libraries = []) {
  execFileSync('gcc', ['-O2', '-o', output, ...files, ...libraries], { cwd: sources, encoding: 'utf8', stdio: 'pipe' })
}

/** What the program prints about its version. */
export function versionOf (program, ...args) {
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  return /\d+(\.\d+)+/.exec(`${stdout}${stderr}`)?.[0]
}

function isReadable (path, mode = constants.R_OK) {
  try {
    accessSync(path, mode)
    return true
  } catch {
    return false
  }
}
