/**
 * The routing tables of one identity. All state belongs to an identity in one channel, never to an index alone:
 * the other side picks the index and can forge it. Times are by the hub's clock, in milliseconds.
 */

/** WireGuard rejects a key 180 s after its handshake. The rest covers packets still in transit. */
const SESSION_LIFETIME = 240_000
const MAX_SESSIONS = 1024
const MAX_SESSIONS_PER_PAIR = 8
const PENDING_LIFETIME = 15_000
const MAX_PENDING_PER_SENDER = 256

interface Session<Identity> {
  to: Identity
  expiresAt: number
  /** Grows with each use of the table. The smallest value marks the least recently used session. */
  lastUse: number
  /** Shared by all sessions with this identity. WireGuard starts a new one every two minutes. */
  traffic: { bytes: number }
}

/** Maps receiver indexes to destination identities. */
export class SessionTable<Identity extends { readonly isRemoved: boolean }> {
  // Created with the first session: an empty map takes more memory than the rest of the identity.
  #byIndex: Map<number, Session<Identity>> | undefined
  #uses = 0

  get size (): number {
    return this.#byIndex?.size ?? 0
  }

  /** @param bytes the size of the datagram about to be sent */
  lookUp (index: number, now: number, bytes = 0): Identity | undefined {
    const session = this.#find(index, now)
    if (session === undefined) return undefined
    session.lastUse = ++this.#uses
    session.traffic.bytes += bytes
    return session.to
  }

  /** Looks up a session without counting it as used, since another identity may have caused the lookup. */
  peek (index: number, now: number): Identity | undefined {
    return this.#find(index, now)?.to
  }

  install (index: number, to: Identity, now: number): void {
    const sessions = this.#byIndex ??= new Map()
    sessions.delete(index)
    const toSame = [...sessions].filter(([, session]) => session.to === to)
    if (toSame.length >= MAX_SESSIONS_PER_PAIR) sessions.delete(leastUsed(toSame))
    else if (sessions.size >= MAX_SESSIONS) sessions.delete(leastUsed([...sessions]))
    const traffic = toSame[0]?.[1].traffic ?? { bytes: 0 }
    sessions.set(index, { to, expiresAt: now + SESSION_LIFETIME, lastUse: ++this.#uses, traffic })
  }

  clear (): void {
    this.#byIndex = undefined
  }

  /** Bytes sent to each identity with a live session. */
  traffic (): Map<Identity, number> {
    return new Map([...this.#byIndex?.values() ?? []].map(({ to, traffic }) => [to, traffic.bytes]))
  }

  /**
   * Drops expired sessions.
   * @returns true if any session remains
   */
  sweep (now: number): boolean {
    if (this.#byIndex === undefined) return false
    for (const [index, session] of this.#byIndex) {
      if (session.expiresAt <= now || session.to.isRemoved) this.#byIndex.delete(index)
    }
    if (this.#byIndex.size === 0) this.#byIndex = undefined
    return this.#byIndex !== undefined
  }

  #find (index: number, now: number): Session<Identity> | undefined {
    const session = this.#byIndex?.get(index)
    return session === undefined || session.expiresAt <= now || session.to.isRemoved ? undefined : session
  }
}

/** The index of the least recently used session. */
function leastUsed (sessions: Array<[number, { lastUse: number }]>): number {
  return sessions.reduce((least, each) => each[1].lastUse < least[1].lastUse ? each : least)[0]
}

/** The part of an identity that other identities' tables use. */
interface Initiator<Identity extends Initiator<Identity>> {
  /** True once it has left its channel for good. */
  readonly isRemoved: boolean
  readonly pending: PendingInitiations<Identity>
}

interface Pending<Identity extends Initiator<Identity>> {
  index: number
  from: Identity
  /** The table that holds this entry. */
  heldBy: PendingInitiations<Identity>
  expiresAt: number
}

/** Initiations delivered to one identity that may still be answered. Maps sender indexes to senders. */
export class PendingInitiations<Identity extends Initiator<Identity>> {
  #received: Map<number, Pending<Identity>> | undefined
  /** Initiations from this identity, oldest first. */
  #sent: Set<Pending<Identity>> | undefined

  senderOf (index: number, now: number): Identity | undefined {
    const pending = this.#received?.get(index)
    if (pending === undefined || pending.expiresAt <= now || pending.from.isRemoved) return undefined
    return pending.from
  }

  /** Adds an initiation. Each sender may have 256 pending; the oldest is removed beyond that. */
  add (index: number, from: Identity, now: number): void {
    this.remove(index)
    const received = this.#received ??= new Map()
    const sent = from.pending.#sent ??= new Set()
    const [oldest] = sent
    if (sent.size >= MAX_PENDING_PER_SENDER) oldest!.heldBy.remove(oldest!.index)
    const pending = { index, from, heldBy: this, expiresAt: now + PENDING_LIFETIME }
    received.set(index, pending)
    sent.add(pending)
  }

  remove (index: number): void {
    const pending = this.#received?.get(index)
    if (pending === undefined) return
    this.#received!.delete(index)
    pending.from.pending.#sent!.delete(pending)
  }

  /** Removes received initiations. Sent ones expire in the tables that hold them. */
  clear (): void {
    for (const index of this.#received?.keys() ?? []) this.remove(index)
  }

  sweep (now: number): void {
    for (const [index, pending] of this.#received ?? []) {
      if (pending.expiresAt <= now) this.remove(index)
    }
    if (this.#received?.size === 0) this.#received = undefined
    if (this.#sent?.size === 0) this.#sent = undefined
  }
}
