import { watchNetwork } from './network-watch.ts'

/** The relay's counterpart is lib/hub/keepalive.ts. All times here are in milliseconds. */

/** Something was sent and nothing came back for this long: ask the other side. */
const QUIET_MS = 2000
/** How long the answer may take, beyond the time that unanswered bytes need to leave. */
const PONG_TIMEOUT_MS = 3000
/** How long it may take after a suspension, which most connections do not survive. */
const RESUMED_PONG_TIMEOUT_MS = 2000
/** Unanswered bytes are assumed to leave at 1 Mbit/s, in bytes per millisecond, and within at most `SLOW_PATH_MS`. */
const SLOW_PATH = 125
const SLOW_PATH_MS = 10_000

export interface LivenessOptions {
  /** Idle time after which `ask` is called, give or take a tenth, in milliseconds. */
  interval: number
  /** Time without `heard()` after which `onDead` is called, once, in milliseconds. */
  timeout: number
  /**
   * Whether the other side answers what `ask` sends. If so, it is also asked when something was sent and nothing came back
   * for 2 s, and a missing answer means that the tunnel is dead.
   */
  isAnswered: boolean
  /** Sends a keepalive. */
  ask: () => void
  /** @param text why, for people; undefined: nothing came for `timeout` */
  onDead: (text?: string) => void
}

/** Keepalives are spread by this part of the interval. */
const KEEPALIVE_SPREAD = 0.1

/** Watches one tunnel: when it needs a keepalive, and when it counts as dead. Its timers do not keep the process alive. */
export class Liveness {
  readonly #options: LivenessOptions
  readonly #unwatch: () => void
  #heard = performance.now()
  #active = this.#heard
  #interval: number
  #timer: NodeJS.Timeout
  #lastLook: NodeJS.Immediate | undefined
  /** Bytes were sent and nothing has come since: when the first of them was sent, and how many they are. */
  #unansweredSince: number | undefined
  #unansweredBytes = 0
  /** When something must have come, and how long after the question that is. */
  #deadline = Infinity
  #patience = 0
  /** Only the answer counts: other bytes may have waited in the receive buffer. */
  #needsAnswer = false

  constructor (options: LivenessOptions) {
    this.#options = options
    this.#interval = jittered(options.interval)
    this.#timer = this.#arm()
    this.#unwatch = watchNetwork({
      tick: () => this.#tick(),
      suspended: (ms) => this.#suspended(ms)
    })
  }

  /** A byte has come from the other side. */
  heard (): void {
    this.#heard = performance.now()
    this.received()
  }

  /** Something has come that proves the path works. It delays neither the keepalive nor the timeout. */
  received (): void {
    this.#unansweredSince = undefined
    this.#unansweredBytes = 0
    if (!this.#needsAnswer) this.#deadline = Infinity
  }

  /** The latest question was answered. */
  answered (): void {
    this.#needsAnswer = false
    this.heard()
  }

  /** Bytes have been sent. */
  sent (bytes: number): void {
    this.#unansweredSince ??= performance.now()
    this.#unansweredBytes += bytes
  }

  /** A blocked tunnel takes bytes again, so the earlier ones have left. */
  unblocked (): void {
    if (this.#needsAnswer) return
    this.#unansweredSince = undefined
    this.#deadline = Infinity
  }

  /** No keepalive is needed for another interval. */
  active (): void {
    this.#active = performance.now()
  }

  /** How long nothing has passed in either direction. */
  get silence (): number {
    return performance.now() - Math.max(this.#heard, this.#active, this.#unansweredSince ?? -Infinity)
  }

  stop (): void {
    clearTimeout(this.#timer)
    clearImmediate(this.#lastLook)
    this.#unwatch()
  }

  // One timer for everything, set again only when it fires: a datagram costs no more than noting the time.
  #arm (): NodeJS.Timeout {
    const next = Math.min(this.#heard + this.#options.timeout, this.#active + this.#interval, this.#deadline)
    return setTimeout(() => this.#check(), Math.max(1, Math.ceil(next - performance.now()))).unref()
  }

  #check (): void {
    const now = performance.now()
    if (this.#isDead(now)) {
      // This process may have been too busy to read. Read what has arrived first.
      this.#lastLook = setImmediate(() => this.#giveUpOrGoOn())
      return
    }
    if (now - this.#active >= this.#interval) this.#ask(now)
    this.#timer = this.#arm()
  }

  #giveUpOrGoOn (): void {
    const now = performance.now()
    if (now >= this.#deadline) this.#options.onDead(`no answer to a ping within ${this.#patience} ms`)
    else if (this.#isDead(now)) this.#options.onDead()
    else this.#timer = this.#arm()
  }

  #isDead (now: number): boolean {
    return now >= this.#deadline || now - this.#heard >= this.#options.timeout
  }

  #tick (): void {
    if (!this.#options.isAnswered || this.#unansweredSince === undefined || this.#deadline !== Infinity) return
    const now = performance.now()
    if (now - this.#unansweredSince < QUIET_MS) return
    this.#askWithin(now, PONG_TIMEOUT_MS + Math.round(Math.min(SLOW_PATH_MS, this.#unansweredBytes / SLOW_PATH)))
  }

  #suspended (ms: number): void {
    const now = performance.now()
    if (!this.#options.isAnswered) {
      // The other side has waited just as long, and has given up.
      if (ms >= this.#options.timeout) this.#heard = -Infinity
      else this.#ask(now)
    } else {
      // Bytes still to be read were sent before the suspension.
      this.#heard = now
      this.#needsAnswer = true
      this.#askWithin(now, RESUMED_PONG_TIMEOUT_MS)
    }
    clearTimeout(this.#timer)
    clearImmediate(this.#lastLook)
    this.#timer = this.#arm()
  }

  #ask (now: number): void {
    this.#active = now
    this.#interval = jittered(this.#options.interval)
    this.#options.ask()
  }

  #askWithin (now: number, patience: number): void {
    this.#patience = patience
    this.#deadline = now + patience
    this.#ask(now)
    clearTimeout(this.#timer)
    this.#timer = this.#arm()
  }
}

function jittered (ms: number): number {
  return ms * (1 - KEEPALIVE_SPREAD + Math.random() * 2 * KEEPALIVE_SPREAD)
}
