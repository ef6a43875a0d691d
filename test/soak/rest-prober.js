import { Agent, request } from 'node:http'

const PAUSE_MS = 50
const TIMEOUT_MS = 10_000

/** Asks the REST routes beside the relay all along: each answer must be a 200 with its content. */
export class RestProber {
  /** Milliseconds that each answer took. */
  times = []
  answered = 0
  #port
  #onFailure
  #agent = new Agent({ keepAlive: true, maxSockets: 1 })
  #isRunning = false
  #running

  constructor (port, onFailure) {
    this.#port = port
    this.#onFailure = onFailure
  }

  start () {
    this.#isRunning = true
    this.#running = this.#run()
  }

  /** Afterwards no connection is left. */
  async stop () {
    this.#isRunning = false
    await this.#running
    this.#agent.destroy()
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 })
  }

  /** The times since the last call: { p50, p99, longest } in milliseconds. */
  takeTimes () {
    const sorted = this.times.sort((a, b) => a - b)
    this.times = []
    const at = (part) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]
    return { p50: at(0.5), p99: at(0.99), longest: sorted.at(-1) }
  }

  async #run () {
    for (let i = 0; this.#isRunning; i++) {
      const started = performance.now()
      try {
        // Now and then a request that merely offers an upgrade to something else, and has a body to lose.
        if (i % 10 === 9) await this.#ask('POST', '/echo', { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQCAAAAAAIAAAAA' })
        else await this.#ask('GET', '/health', {})
        this.answered++
        this.times.push(performance.now() - started)
      } catch (error) {
        if (this.#isRunning) this.#onFailure(error)
      }
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
    }
  }

  #ask (method, path, headers) {
    const body = method === 'POST' ? JSON.stringify({ ok: true, at: Date.now() }) : ''
    const expected = method === 'POST' ? body : '{"ok":true}'
    return new Promise((resolve, reject) => {
      const asked = request({
        port: this.#port,
        host: '127.0.0.1',
        method,
        path,
        agent: this.#agent,
        timeout: TIMEOUT_MS,
        headers: body === '' ? headers : { ...headers, 'Content-Type': 'application/json', 'Content-Length': body.length }
      }, (response) => {
        let text = ''
        response.on('data', (chunk) => { text += chunk })
        response.on('end', () => {
          if (response.statusCode === 200 && text === expected) resolve()
          else reject(new Error(`${method} ${path}: ${response.statusCode} ${text}`))
        })
        response.on('error', reject)
      })
      asked.on('timeout', () => asked.destroy(new Error(`${method} ${path}: no answer within ${TIMEOUT_MS} ms`)))
      asked.on('error', reject)
      asked.end(body)
    })
  }
}
