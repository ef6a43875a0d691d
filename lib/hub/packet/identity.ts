import { rateLimit, TokenBucket } from '../../util/token-bucket.ts'
import { HandshakeRecord } from './handshake-record.ts'
import { mac1Key } from './mac1.ts'
import { PendingInitiations, SessionTable } from './sessions.ts'

const INITIATIONS_PER_SECOND = 50
const INITIATIONS_PER_SECOND_TO_ONE = 1
const MAC1_TESTS_PER_SECOND = 2000
const MAX_PARTNERS = 4

/**
 * Who a peer of a packet channel is. It holds what the channel has learned about routing, and may outlive its tunnel:
 * a client that comes back with the same id finds its WireGuard sessions as they were.
 */
export class Identity<Attached = unknown> {
  readonly id: string
  /** Whether the id was given, not random. */
  readonly isStable: boolean
  readonly publicKey: Buffer | undefined
  #mac1Key: Uint8Array | undefined
  /** Whether it has left its channel for good: what leads to it in the tables of others is void. */
  isRemoved = false
  /** The tunnel, while there is one. */
  peer: Attached | undefined
  /** Where datagrams that this identity sends go, by their receiver index. */
  readonly sessions: SessionTable<Identity<Attached>> = new SessionTable()
  /** Initiations that went to this identity and wait for its response. */
  readonly pending: PendingInitiations<Identity<Attached>> = new PendingInitiations()
  /** Those it was connected with last, newest first: an initiation is likely for one of them. */
  readonly partners: Array<Identity<Attached>> = []
  // Rates that something has been taken from; one that is full again is forgotten.
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

  /** What has become of its handshakes; undefined where it had none. */
  get handshakes (): HandshakeRecord | undefined {
    return this.#handshakes
  }

  /** The same, made where there is none yet. */
  recordHandshakes (): HandshakeRecord {
    this.#handshakes ??= new HandshakeRecord()
    return this.#handshakes
  }

  /** Takes one from the rate of initiations that this identity may send. */
  mayInitiate (now: number): boolean {
    this.#initiations ??= rateLimit(INITIATIONS_PER_SECOND, now)
    return this.#initiations.take(now)
  }

  /** Takes one from the rate of mac1 tests that are made for this identity's initiations. */
  mayTestMac1 (now: number): boolean {
    this.#mac1Tests ??= new TokenBucket(MAC1_TESTS_PER_SECOND, MAC1_TESTS_PER_SECOND, now)
    return this.#mac1Tests.take(now)
  }

  /** The same for those it may send to one other identity. */
  mayInitiateTo (destination: Identity<Attached>, now: number): boolean {
    const buckets = this.#initiationsTo ??= new Map()
    let bucket = buckets.get(destination)
    if (bucket === undefined) {
      bucket = rateLimit(INITIATIONS_PER_SECOND_TO_ONE, now)
      buckets.set(destination, bucket)
    }
    return bucket.take(now)
  }

  /** The identity that `index` stands for when this one is asked to deliver to it; nobody else may take it meanwhile. */
  ownerOf (index: number, now: number): Identity<Attached> | undefined {
    return this.sessions.peek(index, now) ?? this.pending.senderOf(index, now)
  }

  /** Remembers `other` as the newest partner. */
  met (other: Identity<Attached>): void {
    const position = this.partners.indexOf(other)
    if (position === 0) return
    if (position > 0) this.partners.splice(position, 1)
    this.partners.unshift(other)
    this.partners.length = Math.min(this.partners.length, MAX_PARTNERS)
  }

  /** Leaves the channel for good. It keeps nothing: those who left before, and whom it has known, must not be kept alive by it. */
  remove (): void {
    this.isRemoved = true
    this.sessions.clear()
    this.pending.clear()
    this.partners.length = 0
    this.#initiationsTo = undefined
  }

  /** Whether it has used up nothing of its rates: only then can it be forgotten without giving it new ones. */
  #isRested (now: number): boolean {
    if (this.#initiations?.isFull(now)) this.#initiations = undefined
    if (this.#mac1Tests?.isFull(now)) this.#mac1Tests = undefined
    return this.#initiations === undefined && this.#mac1Tests === undefined && this.#initiationsTo === undefined
  }

  /** Drops what has expired. @returns whether anything is left that must not be forgotten */
  sweep (now: number): boolean {
    this.pending.sweep(now)
    for (const [destination, bucket] of this.#initiationsTo ?? []) {
      if (destination.isRemoved || bucket.isFull(now)) this.#initiationsTo!.delete(destination)
    }
    if (this.#initiationsTo?.size === 0) this.#initiationsTo = undefined
    return this.sessions.sweep(now) || !this.#isRested(now)
  }
}
