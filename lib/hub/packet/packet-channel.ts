import { errors } from '../../errors.ts'
import {
  COOKIE_REPLY, HANDSHAKE_INITIATION, HANDSHAKE_RESPONSE, OTHER, TRANSPORT_DATA,
  classify, receiverIndex, senderIndex
} from '../../framing/wireguard.ts'
import { countUp, type DropReason } from '../counters.ts'
import { createPacketPeer } from './create-packet-peer.ts'
import type { HandshakeFault } from './handshake-record.ts'
import { noticeText } from './handshake-words.ts'
import { Identity } from './identity.ts'
import { isAddressedTo } from './mac1.ts'
import type { Mac1Budget } from './mac1-budget.ts'
import type { PacketPeer, PacketRouter } from './packet-peer.ts'
import type { Admitted } from '../admitted.ts'
import type { HubContext } from '../peer.ts'
import { ReplacementLimit } from '../replacement-limit.ts'
import type { SendQueue } from './send-queue.ts'
import { rateLimit, type TokenBucket } from '../../util/token-bucket.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'

/** The mac1 tests of one channel, so that it cannot use up the hub's budget. */
const MAC1_TESTS_PER_SECOND = 2000

/** An identity in the channel, with or (for a while) without a tunnel. */
type Member = Identity<PacketPeer>

/** A channel whose peers exchange datagrams. Routing uses the unencrypted fields of WireGuard's messages. */
export class PacketChannel implements PacketRouter {
  readonly #hub: HubContext
  readonly #mac1Budget: Pick<Mac1Budget, 'take'>
  readonly #mac1Tests: TokenBucket
  readonly #identities = new Map<string, Member>()
  readonly #byPublicKey = new Map<string, Member>()
  readonly #keyless = new Set<Member>()
  readonly #replacements = new ReplacementLimit()
  /** Queues with datagrams from the current chunk. */
  readonly #gathered: SendQueue[] = []
  #attached = 0

  constructor (hub: HubContext, mac1Budget: Pick<Mac1Budget, 'take'>) {
    this.#hub = hub
    this.#mac1Budget = mac1Budget
    this.#mac1Tests = rateLimit(MAC1_TESTS_PER_SECOND, hub.clock.now)
  }

  /** True if the channel has no peers and no remembered identities. */
  get isEmpty (): boolean {
    return this.#identities.size === 0
  }

  get peers (): PacketPeer[] {
    return [...this.#identities.values()].flatMap((identity) => identity.peer ?? [])
  }

  /** Known sessions. Each counts once per side. */
  get sessions (): number {
    let count = 0
    for (const identity of this.#identities.values()) count += identity.sessions.size
    return count
  }

  /** The peers that this one replaces. */
  replacedBy (admitted: Admitted): PacketPeer[] {
    return this.#identitiesReplacedBy(admitted).flatMap((identity) => identity.peer ?? [])
  }

  /**
   * @param isAgain true if the replacement was counted already
   * @throws an error with a status if there is no room for one more peer
   */
  checkRoom (admitted: Admitted, isAgain = false): void {
    const { options } = this.#hub
    const replaced = this.replacedBy(admitted)
    if (this.#attached - replaced.length >= options.maxChannelPeers) {
      throw new errors.FST_RELAY_CHANNEL_FULL(options.maxChannelPeers)
    }
    if (admitted.publicKey === undefined) {
      const keyless = [...this.#keyless].filter(({ peer }) => peer !== undefined && !replaced.includes(peer))
      if (keyless.length >= options.maxKeylessPeers) throw new errors.FST_RELAY_KEYLESS_FULL(options.maxKeylessPeers)
    }
    if (!isAgain) this.#countReplacements(admitted)
  }

  attach (admitted: Admitted, tunnel: Tunnel): PacketPeer {
    for (const older of this.replacedBy(admitted)) older.close('replaced', 'another tunnel has the same identity now')
    const peer = createPacketPeer(admitted, tunnel, this, this.#hub)
    const identity = this.#identityFor(peer)
    identity.peer = peer
    identity.handshakes?.restart()
    peer.identity = identity
    this.#attached++
    return peer
  }

  detach (peer: PacketPeer): void {
    const identity = peer.identity!
    identity.peer = undefined
    this.#attached--
    if (!identity.isStable || !identity.sweep(this.#hub.clock.now)) this.#remove(identity)
    else this.#boundAbsent()
  }

  sweep (): void {
    const { clock } = this.#hub
    for (const identity of this.#identities.values()) {
      const isNeeded = identity.sweep(clock.now)
      if (identity.peer === undefined && !isNeeded) this.#remove(identity)
      identity.peer?.sweep()
    }
    this.#replacements.sweep(clock.now)
  }

  route (from: PacketPeer, chunk: Buffer, frame: number, start: number, end: number, stamped: boolean): void {
    const sender = from.identity!
    const { now } = this.#hub.clock
    const type = stamped ? TRANSPORT_DATA : classify(chunk, start, end)
    switch (type) {
      case TRANSPORT_DATA: {
        const to = sender.sessions.lookUp(receiverIndex(chunk, start, type), now, end - start) ?? this.#theOther(sender)
        if (to === undefined) return from.drop('no-session')
        return this.#deliver(from, to, chunk, frame, start, end, stamped, false)
      }
      case OTHER: {
        const to = this.#theOther(sender)
        if (to === undefined) return from.drop('unroutable')
        return this.#deliver(from, to, chunk, frame, start, end, stamped, false)
      }
      case HANDSHAKE_INITIATION:
        return this.#routeInitiation(from, chunk, frame, start, end)
      case HANDSHAKE_RESPONSE:
        return this.#routeResponse(from, chunk, frame, start, end)
      case COOKIE_REPLY: {
        const to = sender.ownerOf(receiverIndex(chunk, start, type), now)
        if (to === undefined) return from.drop('no-pending')
        // Queued as data if the receiver is blocked: no limit applies to cookie replies of a session.
        return this.#deliver(from, to, chunk, frame, start, end, stamped, false)
      }
    }
  }

  /** Writes the datagrams gathered from the current chunk. */
  flush (): void {
    let fault: unknown
    for (const queue of this.#gathered) {
      try {
        queue.flush()
      } catch (error) {
        // Flush every queue: the memory of the chunk is about to be reused.
        fault = error
      }
    }
    this.#gathered.length = 0
    if (fault !== undefined) throw fault
  }

  #deliver (from: PacketPeer, to: Member, chunk: Buffer, frame: number, start: number, end: number, stamped: boolean, isHandshake: boolean): void {
    const peer = to.peer
    if (peer === undefined) return from.drop('peer-away')
    if (peer.queue.add(chunk, frame, start, end, stamped, from.framing, isHandshake)) this.#gathered.push(peer.queue)
  }

  #routeInitiation (from: PacketPeer, chunk: Buffer, frame: number, start: number, end: number): void {
    const sender = from.identity!
    const { clock, counters } = this.#hub
    if (!sender.mayInitiate(clock.now)) return this.#dropInitiation(from, 'initiation-rate')
    const found = this.#findResponder(from, chunk, start)
    if (found === 'over-budget') return this.#dropInitiation(from, 'mac1-budget')
    const responders = found === undefined ? this.#keylessBut(sender) : [found]
    if (responders.length === 0) {
      counters.initiations.unmatched++
      from.drop('no-responder')
      return this.#failed(from, this.#attached === 1 ? 'alone' : 'no-responder')
    }
    if (found === undefined) counters.initiations.fannedOut++
    else counters.initiations.unicast++
    counters.copies += responders.length - 1
    const index = senderIndex(chunk, start)
    let delivered = 0
    for (const responder of responders) {
      const owner = responder.ownerOf(index, clock.now)
      if (responder.peer === undefined) {
        // Not added to `pending`: the responder never receives it.
        this.#dropInitiation(from, 'peer-away', responder)
      } else if (owner !== undefined && owner !== sender) {
        this.#dropInitiation(from, 'index-collision', responder)
      } else if (!sender.mayInitiateTo(responder, clock.now)) {
        this.#dropInitiation(from, 'initiation-rate', responder)
      } else {
        responder.pending.add(index, sender, clock.now)
        this.#deliver(from, responder, chunk, frame, start, end, false, true)
        delivered++
      }
    }
    // A fanned-out initiation is meant for at most one keyless peer, so record the result for all of them together.
    if (delivered > 0 && sender.recordHandshakes().sent(found?.id)) this.#failed(from, 'unanswered', found, delivered)
  }

  #dropInitiation (from: PacketPeer, reason: DropReason & HandshakeFault, to?: Member): void {
    from.drop(reason)
    this.#failed(from, reason, to)
  }

  /**
   * Records a failed initiation. Repeated failures are reported to the peer and the operator.
   * @param asked how many peers received it
   */
  #failed (from: PacketPeer, fault: HandshakeFault, to?: Member, asked = 1): void {
    const told = from.identity!.recordHandshakes().failed(fault, to?.id, asked, this.#hub.clock.now)
    if (told === undefined) return
    countUp(this.#hub.counters.handshakeFaults, fault)
    this.#hub.handshakesFail(from, told)
    from.notify(fault, noticeText(fault, told, from.admitted.channel.name, to))
  }

  /** Records an answered handshake, and notifies the initiator if it is news. */
  #answered (initiator: Member, responder: Member): void {
    responder.recordHandshakes().completed(initiator.id)
    const wasFannedOut = responder.publicKey === undefined
    const { isOver, isNews } = initiator.recordHandshakes().answered(responder.id, wasFannedOut, this.#hub.clock.now)
    const { peer } = initiator
    if (peer === undefined) return
    if (isOver) this.#hub.handshakesSucceed(peer, responder.id)
    if (isNews) peer.notify('answered', noticeText('answered', { count: 1, asked: 1 }, peer.admitted.channel.name, responder))
  }

  #routeResponse (from: PacketPeer, chunk: Buffer, frame: number, start: number, end: number): void {
    const responder = from.identity!
    const { now } = this.#hub.clock
    const initiatorIndex = receiverIndex(chunk, start, HANDSHAKE_RESPONSE)
    const initiator = responder.pending.senderOf(initiatorIndex, now)
    if (initiator === undefined) return from.drop('no-pending')
    const responderIndex = senderIndex(chunk, start)
    const owner = initiator.ownerOf(responderIndex, now)
    if (owner !== undefined && owner !== responder) return from.drop('index-collision')
    responder.pending.remove(initiatorIndex)
    responder.sessions.install(initiatorIndex, initiator, now)
    initiator.sessions.install(responderIndex, responder, now)
    initiator.met(responder)
    responder.met(initiator)
    this.#deliver(from, initiator, chunk, frame, start, end, false, true)
    this.#answered(initiator, responder)
  }

  /** The identity that the initiation is for; undefined if no known key matches. */
  #findResponder (from: PacketPeer, chunk: Buffer, start: number): Member | undefined | 'over-budget' {
    const sender = from.identity!
    const { client } = from.admitted
    const { now } = this.#hub.clock
    const tested = new Set<Member>([sender])
    for (const group of [sender.partners, this.#byPublicKey.values()]) {
      for (const candidate of group) {
        const key = candidate.mac1Key
        if (key === undefined || candidate.isRemoved || tested.has(candidate)) continue
        if (!sender.mayTestMac1(now) || !this.#mac1Tests.take(now) || !this.#mac1Budget.take(client, now)) return 'over-budget'
        if (isAddressedTo(key, chunk, start)) return candidate
        tested.add(candidate)
      }
    }
  }

  /** All attached keyless peers except `sender`. An initiation may be for any of them. */
  #keylessBut (sender: Member): Member[] {
    return [...this.#keyless].filter((identity) => identity !== sender && identity.peer !== undefined)
  }

  /** The other identity, if the channel has exactly two. */
  #theOther (identity: Member): Member | undefined {
    if (this.#identities.size !== 2) return undefined
    for (const each of this.#identities.values()) {
      if (each !== identity) return each
    }
  }

  /** The identities with the same id or the same public key. They may be one or two. */
  #identitiesReplacedBy ({ id, publicKey }: Admitted): Member[] {
    const byId = id === undefined ? undefined : this.#identities.get(id)
    const key = keyName(publicKey)
    const byKey = key === undefined ? undefined : this.#byPublicKey.get(key)
    return [...new Set([byKey, byId])].filter((identity) => identity !== undefined)
  }

  /**
   * Finds or creates the identity for `peer`. If both id and public key match, it keeps the old one with its sessions.
   * If only one of them matches, the old identity is removed and its sessions end.
   */
  #identityFor (peer: PacketPeer): Member {
    const { admitted } = peer
    for (const known of this.#identitiesReplacedBy(admitted)) {
      if (known.id === admitted.id && keyName(known.publicKey) === keyName(admitted.publicKey)) return known
      this.#remove(known)
    }
    const identity = new Identity<PacketPeer>(peer.id, admitted.id !== undefined, admitted.publicKey)
    this.#list(identity)
    return identity
  }

  /** Counts per id and per key, so that changing the other one does not evade the limit. */
  #countReplacements ({ id, publicKey }: Admitted): void {
    const { now } = this.#hub.clock
    if (id !== undefined && this.#identities.get(id)?.peer !== undefined) this.#replacements.count(`id ${id}`, now)
    const key = keyName(publicKey)
    if (key !== undefined && this.#byPublicKey.get(key)?.peer !== undefined) this.#replacements.count(`key ${key}`, now)
  }

  #list (identity: Member): void {
    this.#identities.set(identity.id, identity)
    const key = keyName(identity.publicKey)
    if (key === undefined) this.#keyless.add(identity)
    else this.#byPublicKey.set(key, identity)
  }

  #unlist (identity: Member): void {
    this.#identities.delete(identity.id)
    this.#keyless.delete(identity)
    const key = keyName(identity.publicKey)
    if (key !== undefined) this.#byPublicKey.delete(key)
  }

  #remove (identity: Member): void {
    this.#unlist(identity)
    identity.remove()
  }

  /** Remembers at most `maxChannelPeers` identities without a tunnel, and removes the oldest beyond that. */
  #boundAbsent (): void {
    if (this.#identities.size - this.#attached <= this.#hub.options.maxChannelPeers) return
    for (const identity of this.#identities.values()) {
      if (identity.peer === undefined) return this.#remove(identity)
    }
  }
}

/** A public key as a map key. */
function keyName (publicKey: Buffer | undefined): string | undefined {
  return publicKey?.toString('base64')
}
