import { rateLimit, TokenBucket } from '../../util/token-bucket.ts'
import { HandshakeRecord } from './handshake-record.ts'
import { mac1Key } from './mac1.ts'
import { PendingInitiations, SessionTable } from './sessions.ts'

const INITIATIONS_PER_SECOND = 50
const INITIATIONS_PER_SECOND_TO_ONE = 1
const MAC1_TESTS_PER_SECOND = 2000
const MAX_PARTNERS = 4

/**
 * The identity of a peer in a packet channel. It holds the routing state and may outlive its tunnel:
 * a client that reconnects with the same id keeps its WireGuard sessions.
 */
export class Identity<Attached = unknown> {
  readonly id: string
  /** True if `identify` gave the id; false if it is random. */
  readonly isStable: boolean
  readonly publicKey: Buffer | undefined
  #mac1Key: Uint8Array | undefined
  /** True once it has left the channel for good. Other identities' table entries for it are then void. */
  isRemoved = false
  /** The attached peer, if any. */
  peer: Attached | undefined
  /** Destinations of this identity's datagrams, by receiver index. */
  readonly sessions: SessionTable<Identity<Attached>> = new SessionTable()
  /** Initiations delivered to this identity that await its response. */
  readonly pending: PendingInitiations<Identity<Attached>> = new PendingInitiations()
  /** Recent session partners, newest first. They are tried first, since an initiation is likely for one of them. */
  readonly partners: Array<Identity<Attached>> = []
  // Rates in use. A bucket is removed once it is full again.
  #initiations: TokenBucket | undefined
  #initiationsTo: Map<Identity<Attached>, TokenBucket> | undefined
  #mac1Tests: TokenBucket | undefined
  #handshakes: HandshakeRecord | undefined

  constructor (id: string, isStable: boolean, publicKey: Buffer | undefined) {
    this.id = id
    this.isStable = isStable
    this.publicKey = publicKey
  }

  /** See `mac1Key`; undefined without a public key. */
  get mac1Key (): Uint8Array | undefined {
    if (this.#mac1Key === undefined && this.publicKey !== undefined) this.#mac1Key = mac1Key(this.publicKey)
    return this.#mac1Key
  }

  /** The handshake record; undefined before the first handshake. */
  get handshakes (): HandshakeRecord | undefined {
    return this.#handshakes
  }

  /** The handshake record, created on first use. */
  recordHandshakes (): HandshakeRecord {
    this.#handshakes ??= new HandshakeRecord()
    return this.#handshakes
  }

  /** Takes one token from this identity's initiation rate. */
  mayInitiate (now: number): boolean {
    this.#initiations ??= rateLimit(INITIATIONS_PER_SECOND, now)
    return this.#initiations.take(now)
  }

  /** Takes one token from the rate of mac1 tests for this identity's initiations. */
  mayTestMac1 (now: number): boolean {
    this.#mac1Tests ??= new TokenBucket(MAC1_TESTS_PER_SECOND, MAC1_TESTS_PER_SECOND, now)
    return this.#mac1Tests.take(now)
  }

  /** Takes one token from this identity's initiation rate to one destination. */
  mayInitiateTo (destination: Identity<Attached>, now: number): boolean {
    const buckets = this.#initiationsTo ??= new Map()
    let bucket = buckets.get(destination)
    if (bucket === undefined) {
      bucket = rateLimit(INITIATIONS_PER_SECOND_TO_ONE, now)
      buckets.set(destination, bucket)
    }
    return bucket.take(now)
  }

  /** The identity that `index` means for this one. No other identity may use the index meanwhile. */
  ownerOf (index: number, now: number): Identity<Attached> | undefined {
    return this.sessions.peek(index, now) ?? this.pending.senderOf(index, now)
  }

  /** Makes `other` the newest partner. */
  met (other: Identity<Attached>): void {
    const position = this.partners.indexOf(other)
    if (position === 0) return
    if (position > 0) this.partners.splice(position, 1)
    this.partners.unshift(other)
    this.partners.length = Math.min(this.partners.length, MAX_PARTNERS)
  }

  /** Leaves the channel for good, and drops all references so that it does not keep other identities in memory. */
  remove (): void {
    this.isRemoved = true
    this.sessions.clear()
    this.pending.clear()
    this.partners.length = 0
    this.#initiationsTo = undefined
  }

  /** True if all rates are full. Forgetting it earlier would reset the rates. */
  #isRested (now: number): boolean {
    if (this.#initiations?.isFull(now)) this.#initiations = undefined
    if (this.#mac1Tests?.isFull(now)) this.#mac1Tests = undefined
    return this.#initiations === undefined && this.#mac1Tests === undefined && this.#initiationsTo === undefined
  }

  /**
   * Drops expired entries.
   * @returns true if the identity must be kept
   */
  sweep (now: number): boolean {
    this.pending.sweep(now)
    for (const [destination, bucket] of this.#initiationsTo ?? []) {
      if (destination.isRemoved || bucket.isFull(now)) this.#initiationsTo!.delete(destination)
    }
    if (this.#initiationsTo?.size === 0) this.#initiationsTo = undefined
    return this.sessions.sweep(now) || !this.#isRested(now)
  }
}
