import type { NoticeName } from '../../framing/notices.ts'

/** Why WireGuard handshakes from a peer fail. Names shared with a drop reason mean dropped for that reason. */
export type HandshakeFault = Exclude<NoticeName, 'answered'>

/** WireGuard handshakes between a peer and another peer of its channel. */
export interface HandshakeInfo {
  /** The other peer's id. Undefined stands for all keyless peers, who get initiations that match no known key. */
  id: string | undefined
  /** Initiations delivered to that peer. */
  sent: number
  /** Initiations it answered. */
  answered: number
  /** Unanswered initiations since its last answer. */
  unanswered: number
  /** When the last handshake between the two was answered, in either direction. Undefined: never. */
  lastAt: Date | undefined
}

/** Handshakes from a peer that failed several times in a row. */
export interface HandshakeFaultInfo {
  fault: HandshakeFault
  /** The id of the intended peer, if the relay knows it. */
  id: string | undefined
  /** How many peers received each initiation. Above 1 for keyless peers only. */
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
  /** True once the current tunnel was notified that this peer answers. */
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
 * WireGuard retries every 5 s for 90 s. Three in a row take 10 s: long enough to outlast a brief outage,
 * short enough that the user is still watching. The limit is 8 s because the hub's clock may be a second late.
 */
const MIN_COUNT = 3
const MIN_MS = 8000
/** Failures further apart than this are not in a row. */
const GAP_MS = 60_000
const TELL_AGAIN_MS = 300_000
const TELL_INTERVAL_MS = 5000
/** How long `faults` lists a fault after its last occurrence. */
const SHOWN_MS = 600_000

/**
 * Outcomes of the WireGuard handshakes of one identity. All tables are bounded. Other identities are stored by id
 * only, so that the record does not keep them in memory. Times are by the hub's clock, in milliseconds, unless noted.
 */
export class HandshakeRecord {
  /** The last answered handshake, in either direction. `at` is by `Date.now`. */
  last: { id: string, at: number } | undefined
  readonly #partners = new Map<string | undefined, Partner>()
  readonly #faults = new Map<string, Fault>()
  #toldAt = -Infinity

  /**
   * Records an initiation delivered to `to`; undefined means all keyless peers.
   * @returns true if the previous initiation was not answered
   */
  sent (to: string | undefined): boolean {
    const partner = this.#partner(to)
    partner.sent++
    return partner.unanswered++ > 0
  }

  /**
   * Records a failed initiation.
   * @param asked how many peers received it
   * @returns the fault, if it persists and must be reported now
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
   * Records that the peer `by` answered a handshake from this one.
   * @param wasFannedOut true if the initiation went to all keyless peers
   * @returns `isOver`: a reported fault is over; `isNews`: the answer must be reported to the peer now
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

  /** Records an answered handshake with the peer `id`, in either direction. */
  completed (id: string): void {
    const at = Date.now()
    this.last = { id, at }
    this.#partner(id).lastAt = at
  }

  /** Starts over for a new tunnel, which has had no notices yet. */
  restart (): void {
    this.#faults.clear()
    for (const partner of this.#partners.values()) partner.isTold = false
  }

  /** One entry per partner, newest first. */
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
