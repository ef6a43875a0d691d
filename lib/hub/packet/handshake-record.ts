import type { NoticeName } from '../../framing/notices.ts'

/** Why WireGuard handshakes that a peer begins come to nothing; where it names a drop reason, they are dropped for it. */
export type HandshakeFault = Exclude<NoticeName, 'answered'>

/** WireGuard handshakes of a peer with another one of its channel. */
export interface HandshakeInfo {
  /** The other peer's id; undefined: those whose public key the relay does not know, who get what nobody else claims. */
  id: string | undefined
  /** Initiations that were delivered to it. */
  sent: number
  /** How many of them it answered. */
  answered: number
  /** How many it has not answered since. */
  unanswered: number
  /** When the last handshake between the two was answered, whoever began it; undefined for never. */
  lastAt: Date | undefined
}

/** Handshakes that a peer begins, and that have come to nothing several times in a row. */
export interface HandshakeFaultInfo {
  fault: HandshakeFault
  /** The peer they are for, where the relay knows it. */
  id: string | undefined
  /** How many peers got each of them, where that is not one: those whose public key the relay does not know. */
  asked: number
  count: number
  since: Date
  lastAt: Date
}

interface Partner {
  sent: number
  answered: number
  unanswered: number
  /** By `Date.now`. */
  lastAt: number | undefined
  /** Whether this tunnel has been told that it answers. */
  isTold: boolean
}

interface Fault {
  readonly name: HandshakeFault
  readonly to: string | undefined
  asked: number
  count: number
  since: number
  lastAt: number
  toldAt: number | undefined
}

const MAX_PARTNERS = 16
const MAX_FAULTS = 32
/**
 * WireGuard begins anew every 5 s, for 90 s. Three in a row take 10 s: a moment's outage is over by then, and whoever
 * watches is still there. Less than these 10 s, because the hub's clock is a second late at times.
 */
const MIN_COUNT = 3
const MIN_MS = 8000
/** After this long without any, they are not in a row. */
const GAP_MS = 60_000
const TELL_AGAIN_MS = 300_000
const TELL_INTERVAL_MS = 5000
/** How long a fault that did not occur again is shown. */
const SHOWN_MS = 600_000

/**
 * What has become of the WireGuard handshakes of one identity. All of it is bounded, and others are known by their ids
 * alone, so that it keeps nobody alive. Times are by the hub's clock, in milliseconds, unless it says otherwise.
 */
export class HandshakeRecord {
  /** The last handshake that was answered, whoever began it; `at` by `Date.now`. */
  last: { id: string, at: number } | undefined
  readonly #partners = new Map<string | undefined, Partner>()
  readonly #faults = new Map<string, Fault>()
  #toldAt = -Infinity

  /**
   * An initiation is delivered to `to`, undefined for all without a public key.
   * @returns whether the one before was not answered
   */
  sent (to: string | undefined): boolean {
    const partner = this.#partner(to)
    partner.sent++
    return partner.unanswered++ > 0
  }

  /**
   * An initiation came to nothing.
   * @param asked how many peers got it
   * @returns the fault, when it persists and is to be told now
   */
  failed (name: HandshakeFault, to: string | undefined, asked: number, now: number): HandshakeFaultInfo | undefined {
    const fault = this.#fault(name, to, now)
    if (now - fault.lastAt > GAP_MS) {
      fault.count = 0
      fault.since = now
    }
    fault.asked = asked
    fault.count++
    fault.lastAt = now
    if (!persists(fault)) return undefined
    if (fault.toldAt !== undefined && now - fault.toldAt < TELL_AGAIN_MS) return undefined
    if (!this.#mayTell(now)) return undefined
    fault.toldAt = now
    return showFault(fault, now)
  }

  /**
   * The peer `by` has answered a handshake that this one began.
   * @param wasFannedOut whether it was delivered to all without a public key
   * @returns whether a fault that was told is over, and whether that it answers is news to be told now
   */
  answered (by: string, wasFannedOut: boolean, now: number): { isOver: boolean, isNews: boolean } {
    this.completed(by)
    const partner = this.#partner(by)
    if (wasFannedOut) {
      partner.sent++
      const all = this.#partner(undefined)
      all.answered = Math.min(all.sent, all.answered + 1)
      all.unanswered = 0
    }
    partner.answered++
    partner.unanswered = 0
    let isOver = false
    for (const [key, fault] of this.#faults) {
      if (fault.to !== by) continue
      isOver ||= fault.toldAt !== undefined
      this.#faults.delete(key)
    }
    const isNews = (isOver || !partner.isTold) && this.#mayTell(now)
    if (isNews) partner.isTold = true
    return { isOver, isNews }
  }

  /** A handshake with the peer `id` was answered. */
  completed (id: string): void {
    const at = Date.now()
    this.last = { id, at }
    this.#partner(id).lastAt = at
  }

  /** A new tunnel was told nothing yet. */
  restart (): void {
    this.#faults.clear()
    for (const partner of this.#partners.values()) partner.isTold = false
  }

  /** With whom, the newest first. */
  handshakes (): HandshakeInfo[] {
    return [...this.#partners].reverse().map(([id, { sent, answered, unanswered, lastAt }]) =>
      ({ id, sent, answered, unanswered, lastAt: lastAt === undefined ? undefined : new Date(lastAt) }))
  }

  faults (now: number): HandshakeFaultInfo[] {
    return [...this.#faults.values()]
      .filter((fault) => persists(fault) && now - fault.lastAt < SHOWN_MS)
      .map((fault) => showFault(fault, now))
  }

  #partner (id: string | undefined): Partner {
    let partner = this.#partners.get(id)
    if (partner === undefined) partner = { sent: 0, answered: 0, unanswered: 0, lastAt: undefined, isTold: false }
    else this.#partners.delete(id)
    this.#partners.set(id, partner)
    if (this.#partners.size > MAX_PARTNERS) this.#partners.delete(this.#partners.keys().next().value)
    return partner
  }

  #fault (name: HandshakeFault, to: string | undefined, now: number): Fault {
    const key = to === undefined ? name : `${name} ${to}`
    let fault = this.#faults.get(key)
    if (fault === undefined) {
      fault = { name, to, asked: 1, count: 0, since: now, lastAt: now, toldAt: undefined }
      if (this.#faults.size >= MAX_FAULTS) this.#faults.delete(this.#faults.keys().next().value!)
      this.#faults.set(key, fault)
    }
    return fault
  }

  #mayTell (now: number): boolean {
    if (now - this.#toldAt < TELL_INTERVAL_MS) return false
    this.#toldAt = now
    return true
  }
}

function persists ({ count, since, lastAt }: Fault): boolean {
  return count >= MIN_COUNT && lastAt - since >= MIN_MS
}

function showFault ({ name, to, asked, count, since, lastAt }: Fault, now: number): HandshakeFaultInfo {
  const dateOf = (time: number): Date => new Date(Date.now() - (now - time))
  return { fault: name, id: to, asked, count, since: dateOf(since), lastAt: dateOf(lastAt) }
}
