import { execFile, execFileSync } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { plainEnvironment, Program } from './program.ts'

// Everything that runs in a namespace dies with the process that started it, even when that is killed. The
// namespace has no name and is held by a process only, so it goes as well and nothing can be left behind.
const DIE_WITH_PARENT = ['setpriv', '--pdeathsig', 'KILL'] as const

const SET_UP = fileURLToPath(new URL('namespace.sh', import.meta.url))

/** Why namespaces with WireGuard cannot be had here; undefined if they can. */
export function missingForNamespaces (commands: string[]): string | undefined {
  if (process.platform !== 'linux') return `needs Linux, this is ${process.platform}`
  if (process.getuid?.() !== 0) return 'needs to be run as root'
  const missing = ['ip', 'unshare', 'nsenter', 'setpriv', ...commands].filter((name) => !isInPath(name))
  if (missing.length > 0) return `needs the commands: ${missing.join(', ')}`
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK)
  } catch {
    return 'needs /dev/net/tun'
  }
  try {
    execFileSync('unshare', ['--net', '--mount', 'ip', 'tuntap', 'add', 'tun0', 'mode', 'tun'], { stdio: 'pipe' })
  } catch (error) {
    return `may not make network namespaces with TUN devices: ${(error as Error).message.trim()}`
  }
}

function isInPath (name: string): boolean {
  return (process.env['PATH'] ?? '').split(delimiter).some((directory) => {
    try {
      accessSync(join(directory, name), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/** A network namespace, and the programs that run in it. */
export class Namespace {
  readonly name: string
  #holder: Program
  #programs = new Set<Program>()

  private constructor (name: string, holder: Program) {
    this.name = name
    this.#holder = holder
  }

  static async create (name: string): Promise<Namespace> {
    const holder = new Program(DIE_WITH_PARENT[0], [
      ...DIE_WITH_PARENT.slice(1), 'unshare', '--net', '--mount', 'sh', SET_UP
    ], { name: `namespace ${name}` })
    await holder.line((line) => line === 'ready', 10_000)
    return new Namespace(name, holder)
  }

  /** Joins this namespace with another by a pair of devices, each with an address of its own. */
  async link (device: string, address: string, other: Namespace, otherDevice: string, otherAddress: string): Promise<void> {
    await this.run('ip', ['link', 'add', device, 'type', 'veth', 'peer', 'name', otherDevice, 'netns', String(other.#holder.child.pid)])
    await this.run('ip', ['address', 'add', address, 'dev', device])
    await other.run('ip', ['address', 'add', otherAddress, 'dev', otherDevice])
    await this.run('ip', ['link', 'set', device, 'up'])
    await other.run('ip', ['link', 'set', otherDevice, 'up'])
  }

  /** Runs a program to its end and gives back what it printed; throws when it fails. */
  run (command: string, args: string[], options: { input?: string, timeout?: number, env?: NodeJS.ProcessEnv } = {}): Promise<string> {
    const [file, ...rest] = this.#inside(command, args)
    const { input = '', timeout = 10_000, env } = options
    return new Promise((resolve, reject) => {
      const child = execFile(file, rest, { timeout, env: { ...plainEnvironment, ...env }, maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
        if (error === null) resolve(stdout)
        else reject(new Error(`${this.name}: ${command} ${args.join(' ')}: ${error.message}\n${stdout}\n${stderr}`))
      })
      child.stdin!.on('error', () => {}) // it may end without reading
      child.stdin!.end(input)
    })
  }

  /** Starts a program that runs until it is stopped or the namespace is closed. */
  start (command: string, args: string[], options: { env?: NodeJS.ProcessEnv } = {}): Program {
    const [file, ...rest] = this.#inside(command, args)
    const program = new Program(file, rest, { ...options, name: `${this.name}: ${command}` })
    this.#programs.add(program)
    program.child.once('close', () => this.#programs.delete(program))
    return program
  }

  async close (): Promise<void> {
    await Promise.all([...this.#programs].map((program) => program.stop('SIGKILL')))
    await this.#holder.stop('SIGKILL')
  }

  #inside (command: string, args: string[]): [string, ...string[]] {
    // Each of these replaces itself by the next, so that the child's process id is the program's.
    const enter = ['nsenter', '--target', String(this.#holder.child.pid), '--net', '--mount', '--']
    return [...DIE_WITH_PARENT, ...enter, command, ...args]
  }
}
