import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { hasProgram, loadPath } from './programs.js'

// The relay under test has the last processor for itself, the load generator the first: neither takes from the other.
const processors = availableParallelism()
export const isPinned = processors > 1 && hasProgram('taskset')

// Of Linux, whatever the kernel counts in.
const TICKS_PER_SECOND = 100

const running = new Set()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** Starts a program on the relay's processor. */
export function startProgram (command, options = {}) {
  return start(command, processors - 1, { stdio: ['ignore', 'ignore', 'inherit'], ...options })
}

function start (command, processor, options) {
  return startUnpinned(pin(command, processor), options)
}

/** Starts a program on any processor. */
export function startUnpinned ([file, ...args], options) {
  const child = spawn(file, args, options)
  running.add(child)
  child.once('exit', () => running.delete(child))
  return child
}

/** taskset becomes the program, so that the process id stays. */
function pin (command, processor) {
  return isPinned ? ['taskset', '-c', String(processor), ...command] : command
}

/** A relay that runs on Node, in a process of its own: a file of `relays/`. */
export class NodeRelay {
  #child
  port

  get pids () {
    return [this.#child.pid]
  }

  /**
   * @param file in `relays/`
   * @param settings given to it
   * @param namespace where it runs, on any processor
   */
  static async start (file, settings = {}, namespace = undefined) {
    const relay = new NodeRelay()
    const path = fileURLToPath(new URL(`../relays/${file}`, import.meta.url))
    // A profile of the relay: BENCH_NODE_OPTIONS='--cpu-prof --cpu-prof-dir=/tmp/profiles'.
    const extra = process.env.BENCH_NODE_OPTIONS?.split(' ') ?? []
    const command = [process.execPath, '--expose-gc', '--no-warnings', ...extra, path, JSON.stringify(settings)]
    const options = { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }
    relay.#child = namespace === undefined ? startProgram(command, options) : namespace.start(command, options)
    const [{ port }] = await once(relay.#child, 'message')
    relay.port = port
    return relay
  }

  /** What is in use after a collection of garbage, in bytes. */
  async memory () {
    const { rss, heapUsed, external } = await this.#ask('memory')
    return { rss, heap: heapUsed + external }
  }

  /** Seconds of CPU since the start. */
  async cpu () {
    const { user, system } = await this.#ask('cpu')
    return (user + system) / 1e6
  }

  /** How many it has sent on, of all tunnels. */
  async datagrams () {
    return await this.#ask('datagrams')
  }

  async #ask (question) {
    this.#child.send(question)
    const [answer] = await once(this.#child, 'message')
    return answer
  }

  async stop () {
    const exited = once(this.#child, 'exit')
    this.#child.send('stop')
    await exited
  }
}

/** A program that joins connections to its port with ones to another port, where the load generator listens. */
export class ProxyRelay {
  #makeCommand
  #isStartedAnew
  #child
  port
  sinkPort

  get pids () {
    return [this.#child.pid]
  }

  /**
   * @param makeCommand gets the two ports
   * @param isStartedAnew one that serves a single connection is started again for each
   */
  static async start (makeCommand, { isStartedAnew = false } = {}) {
    const relay = new ProxyRelay()
    relay.#makeCommand = makeCommand
    relay.#isStartedAnew = isStartedAnew
    relay.port = await freePort()
    relay.sinkPort = await freePort()
    relay.#start()
    return relay
  }

  /** The load generator waits until it listens. */
  #start () {
    this.#child = startProgram(this.#makeCommand(this.port, this.sinkPort))
  }

  async ready () {
    if (!this.#isStartedAnew) return
    await this.stop()
    this.#start()
  }

  async stop () {
    if (this.#child === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const exited = once(this.#child, 'exit')
    this.#child.kill('SIGKILL')
    await exited
  }
}

/**
 * Runs the load generator against a relay.
 * @param mode see load.c
 * @param settings see load.c
 * @returns what it has measured
 */
export async function load (mode, relay, settings) {
  await relay.ready?.()
  const [file, ...args] = pin([loadPath, mode, ...loadArguments(relay, settings)], 0)
  return await new Promise((resolve, reject) => {
    execFile(file, args, { timeout: 60_000, env: loadEnvironment }, (error, stdout, stderr) => {
      if (error === null) resolve(JSON.parse(stdout))
      else reject(new Error(`load ${mode}: ${stderr.trim() || error.message}`))
    })
  })
}

/** Seconds of CPU that a process has used, in steps of 10 ms. */
export function cpuOfProcess (pid) {
  // Behind the name, which may have spaces in it; then the 12th and the 13th are ticks of user and system time.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

/** Tunnels that stay open until they are closed. */
export class OpenTunnels {
  #child
  /** How many, in how many seconds, with how much of the relay's CPU. */
  opened

  static async open (relay, settings) {
    const tunnels = new OpenTunnels()
    tunnels.#child = start([loadPath, 'open', ...loadArguments(relay, settings)], 0, { stdio: ['pipe', 'pipe', 'inherit'] })
    const [line] = await Promise.race([once(tunnels.#child.stdout, 'data'), once(tunnels.#child, 'exit')])
    if (!Buffer.isBuffer(line)) throw new Error('the tunnels could not be opened')
    tunnels.opened = JSON.parse(line)
    return tunnels
  }

  async close () {
    const exited = once(this.#child, 'exit')
    this.#child.stdin.end()
    await exited
  }
}

/** How many files a process may have open: Node and the load generator both raise their limit to that. */
export function openFiles () {
  const [, hard] = /^Max open files +\S+ +(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  return hard === 'unlimited' ? Infinity : Number(hard)
}

export const certificate = fileURLToPath(new URL('../../test/fixtures/server.pem', import.meta.url))
export const certificateKey = fileURLToPath(new URL('../../test/fixtures/server-key.pem', import.meta.url))
const loadEnvironment = { ...process.env, LOAD_CERTIFICATE: certificate, LOAD_KEY: certificateKey }

function loadArguments (relay, settings) {
  const all = { port: relay.port, ...(relay.sinkPort !== undefined && { sinkPort: relay.sinkPort }), ...settings }
  const pids = relay.pids.map((pid) => `pid=${pid}`)
  return [...Object.entries(all).map(([name, value]) => `${name}=${Number(value) === value || value === true || value === false ? Number(value) : value}`), ...pids]
}

async function freePort () {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}
