export interface LivenessOptions {
  /** Idle time after which `onIdle` is called, give or take a tenth, in milliseconds. */
  interval: number
  /** Time without `heard()` after which `onDead` is called, once, in milliseconds. */
  timeout: number
  onIdle: () => void
  onDead: () => void
}

const JITTER = 0.1

/** Watches one tunnel: when it needs a keepalive, and when it counts as dead. Its timer keeps no process alive. */
export class Liveness {
  readonly #options: LivenessOptions
  #heard = performance.now()
  #active = this.#heard
  #interval: number
  #timer: NodeJS.Timeout

  constructor (options: LivenessOptions) {
    this.#options = options
    this.#interval = jittered(options.interval)
    this.#timer = this.#arm()
  }

  /** A byte has come from the other side. */
  heard (): void {
    this.#heard = performance.now()
  }

  /** Something has happened that makes a keepalive needless for another interval. */
  active (): void {
    this.#active = performance.now()
  }

  stop (): void {
    clearTimeout(this.#timer)
  }

  // One timer for both, set anew only when it fires: noting a time is all that a datagram costs.
  #arm (): NodeJS.Timeout {
    const next = Math.min(this.#heard + this.#options.timeout, this.#active + this.#interval)
    return setTimeout(() => this.#check(), Math.max(1, Math.ceil(next - performance.now()))).unref()
  }

  #check (): void {
    const now = performance.now()
    if (now - this.#heard >= this.#options.timeout) {
      this.#options.onDead()
      return
    }
    if (now - this.#active >= this.#interval) {
      this.#active = now
      this.#interval = jittered(this.#options.interval)
      this.#options.onIdle()
    }
    this.#timer = this.#arm()
  }
}

function jittered (ms: number): number {
  return ms * (1 - JITTER + Math.random() * 2 * JITTER)
}
