import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { startUnpinned } from './process.js'
import { hasProgram } from './programs.js'

const SET_UP = fileURLToPath(new URL('../../test/helpers/namespace.sh', import.meta.url))

// A bench that is killed leaves nothing behind: a namespace goes with the last process in it.
const dieWithParent = ['setpriv', '--pdeathsig', 'KILL']

/** Says why namespaces cannot be had here; undefined if they can. */
export async function missingForNamespaces () {
  if (process.getuid?.() !== 0) return 'needs to be run as root'
  const missing = ['ip', 'unshare', 'nsenter', 'setpriv', 'ping'].filter((name) => !hasProgram(name))
  if (missing.length > 0) return `needs ${missing.join(', ')}`
  if (!await succeedsInside('true')) return 'may not make network namespaces'
}

/** Whether a command succeeds in a new namespace. */
export async function succeedsInside (...command) {
  return await promisify(execFile)('unshare', ['--net', '--mount', ...command]).then(() => true, () => false)
}

/** A host of its own: what runs there sees no other network than the links that it is given. */
export class Namespace {
  #holder
  #programs = new Set()

  static async create () {
    const namespace = new Namespace()
    namespace.#holder = startUnpinned([...dieWithParent, 'unshare', '--net', '--mount', 'sh', SET_UP], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(namespace.#holder.stdout, 'data')
    return namespace
  }

  /** Joins it with another by a pair of devices, each with an address. */
  async link (device, address, other, otherDevice, otherAddress) {
    await this.run('ip', 'link', 'add', device, 'type', 'veth', 'peer', 'name', otherDevice, 'netns', String(other.#holder.pid))
    await this.run('ip', 'address', 'add', address, 'dev', device)
    await other.run('ip', 'address', 'add', otherAddress, 'dev', otherDevice)
    await this.run('ip', 'link', 'set', device, 'up')
    await other.run('ip', 'link', 'set', otherDevice, 'up')
  }

  /** Starts a program that runs until it is stopped. */
  start (command, options) {
    const program = startUnpinned(this.#inside(command), { stdio: 'ignore', ...options })
    this.#programs.add(program)
    program.once('exit', () => this.#programs.delete(program))
    return program
  }

  /** Runs a program to its end; what it has printed. */
  async run (...command) {
    const [file, ...args] = this.#inside(command)
    const { stdout } = await promisify(execFile)(file, args, { timeout: 60_000 })
    return stdout
  }

  /** Ends all that runs in it. */
  async close () {
    await Promise.all([...this.#programs, this.#holder].map((program) => {
      const exited = once(program, 'exit')
      program.kill('SIGKILL')
      return exited
    }))
  }

  /** Each of these becomes the next, so that the process id is the program's. */
  #inside (command) {
    return [...dieWithParent, 'nsenter', '--target', String(this.#holder.pid), '--net', '--mount', '--', ...command]
  }
}
