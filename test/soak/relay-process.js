import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

const SERVER = fileURLToPath(new URL('relay-server.js', import.meta.url))

/** The relay's process, and what it answers. */
export class RelayProcess {
  /** Called with why the process has ended before it was told to. */
  onDeath = () => {}
  hasEnded = false
  #child
  #waiting = new Map()
  #nextNumber = 0
  #isClosing = false

  constructor (child) {
    this.#child = child
    child.on('message', ({ number, answer, error }) => {
      const waiting = this.#waiting.get(number)
      this.#waiting.delete(number)
      if (error === undefined) waiting?.resolve(answer)
      else waiting?.reject(new Error(`the relay's process: ${error}`))
    })
    child.on('exit', (code, signal) => {
      this.hasEnded = true
      for (const { reject } of this.#waiting.values()) reject(new Error(`the relay's process has ended: ${signal ?? code}`))
      if (!this.#isClosing) this.onDeath(`the relay's process has ended: ${signal ?? code}`)
    })
  }

  /** @param settings see relay-server.js */
  static async start (settings) {
    const child = fork(SERVER, [JSON.stringify(settings)], { execArgv: ['--expose-gc', '--no-warnings'], env: { ...process.env, NODE_OPTIONS: '' } })
    const [{ port }] = await once(child, 'message')
    const relay = new RelayProcess(child)
    relay.port = port
    return relay
  }

  ask (question, details = {}) {
    const number = this.#nextNumber++
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject })
      this.#child.send({ number, question, ...details })
    })
  }

  /** Closes the app; @returns the exit code of the process, which must end by itself then */
  async close (timeout) {
    this.#isClosing = true
    const exited = once(this.#child, 'exit')
    this.#child.send({ number: this.#nextNumber++, question: 'close' })
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), timeout)
    const [code, signal] = await exited
    clearTimeout(timer)
    return signal ?? code
  }

  kill () {
    this.#isClosing = true
    this.#child.kill('SIGKILL')
  }
}
