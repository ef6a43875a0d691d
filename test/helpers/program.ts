import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

/** The environment without NODE_OPTIONS, by which tap would load itself into every Node that a test starts. */
export const plainEnvironment: NodeJS.ProcessEnv = { ...process.env, NODE_OPTIONS: '' }

interface Waiter {
  match: (line: string) => boolean
  resolve: (line: string) => void
  reject: (error: Error) => void
}

/** A running program of which a test awaits lines of output, always with a deadline. */
export class Program {
  readonly lines: string[] = []
  readonly name: string
  readonly child: ChildProcess
  #errors = ''
  #waiters = new Set<Waiter>()
  #closed = false

  constructor (command: string, args: string[], options: { env?: NodeJS.ProcessEnv, cwd?: string, name?: string } = {}) {
    this.name = options.name ?? command
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...plainEnvironment, ...options.env },
      ...(options.cwd === undefined ? {} : { cwd: options.cwd })
    })
    this.child = child
    child.stderr.setEncoding('utf8').on('data', (text: string) => { this.#errors += text })
    createInterface({ input: child.stdout }).on('line', (line) => this.#onLine(line))
    child.on('error', (error) => { this.#errors += error.message; this.#onClose() })
    child.on('close', () => this.#onClose())
  }

  /** What it has written on standard error. */
  get errors (): string {
    return this.#errors
  }

  /** What the program wrote, for the message of a failed test. */
  get output (): string {
    return `${this.lines.slice(-30).join('\n')}\n${this.#errors.slice(-4000)}`
  }

  /** The first line at or behind the position `from` that `match` accepts. */
  line (match: (line: string) => boolean, timeout: number, from = 0): Promise<string> {
    const found = this.lines.slice(from).find(match)
    if (found !== undefined) return Promise.resolve(found)
    if (this.#closed) return Promise.reject(this.#failure('ended before the awaited line'))
    return new Promise((resolve, reject) => {
      const waiter = { match, resolve, reject }
      this.#waiters.add(waiter)
      const timer = setTimeout(() => {
        settle()
        reject(this.#failure(`did not print the awaited line within ${timeout} ms`))
      }, timeout)
      const settle = () => {
        clearTimeout(timer)
        this.#waiters.delete(waiter)
      }
      waiter.resolve = (line) => { settle(); resolve(line) }
      waiter.reject = (error) => { settle(); reject(error) }
    })
  }

  /** Sends a signal and waits until the program is gone. */
  async stop (signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#closed) return
    const closed = once(this.child, 'close')
    this.child.kill(signal)
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 10_000)
    await closed
    clearTimeout(timer)
  }

  /** Waits until the program has ended by itself; its exit code. */
  async end (timeout: number): Promise<number | null> {
    if (!this.#closed) {
      try {
        await once(this.child, 'close', { signal: AbortSignal.timeout(timeout) })
      } catch {
        throw this.#failure(`did not end within ${timeout} ms`)
      }
    }
    return this.child.exitCode
  }

  #onLine (line: string): void {
    this.lines.push(line)
    for (const waiter of this.#waiters) {
      if (waiter.match(line)) waiter.resolve(line)
    }
  }

  #onClose (): void {
    this.#closed = true
    for (const waiter of this.#waiters) waiter.reject(this.#failure('ended before the awaited line'))
  }

  #failure (what: string): Error {
    return new Error(`${this.name} ${what}; it wrote:\n${this.output}`)
  }
}
