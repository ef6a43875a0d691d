import assert from 'node:assert/strict'
import fc, { type Arbitrary } from 'fast-check'
import type { Decoder, Framing } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { Clock } from '../../lib/hub/clock.ts'
import { createCounters } from '../../lib/hub/counters.ts'
import { Mac1Budget } from '../../lib/hub/packet/mac1-budget.ts'
import { PacketChannel } from '../../lib/hub/packet/packet-channel.ts'
import type { PacketPeer } from '../../lib/hub/packet/packet-peer.ts'
import type { HubContext } from '../../lib/hub/peer.ts'
import { readHubOptions } from '../../lib/hub/hub-options.ts'
import { admitted } from '../helpers/admitted.ts'
import { frames } from '../helpers/fake-relay.ts'
import { FakeTunnel } from '../helpers/fake-tunnel.ts'
import { Sink } from '../helpers/sink.ts'
import { cookieReply, initiation, response, transportData } from '../helpers/wireguard-messages.ts'
import { anyBytes, chunking, cut, type Chunking } from './arbitraries.ts'
import type { Fuzz } from './fuzz.ts'

/**
 * Hostile peers in two channels of one hub send what they like; who may get it is worked out here from all that has
 * been delivered before, by rules that know nothing of the relay's tables.
 */

const SESSION_LIFETIME = 240_000
const PENDING_LIFETIME = 15_000
const SESSIONS_PER_PAIR = 8
const INITIATION_BURST_TO_ONE = 5
const MAX_PARTNERS = 4
const TAG_AT = 16

/** Who may come: some by a key, some by an id, some by both, some as nobody. The last two take others' names. */
const CAST = [
  { id: 'a', key: undefined }, { id: 'b', key: undefined }, { id: undefined, key: undefined }, { id: 'k', key: 1 },
  { id: 'l', key: 2 }, { id: 'by its key', key: 3 }, { id: 'a', key: 4 }, { id: 'm', key: 1 }
]
const keys = Array.from({ length: 6 }, (_, number) => Buffer.alloc(32, number + 1))

/** Few, so that they collide. */
const index = fc.nat(3)
const player = fc.nat(CAST.length - 1)
const place = fc.nat(1)

type Message =
  { type: 'initiation', index: number, to: number | undefined } |
  { type: 'response', index: number, receiver: number } |
  { type: 'cookie' | 'data', receiver: number } |
  { type: 'other', head: Buffer }

const message: Arbitrary<Message> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant('initiation'), index, to: fc.option(fc.nat(keys.length - 1), { nil: undefined }) }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('response'), index, receiver: index }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('cookie'), receiver: index }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('data'), receiver: index }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('other'), head: anyBytes(4) }) }
)

type Step =
  { do: 'attach', place: number, player: number, framing: 'wg' | 'len16' } |
  { do: 'leave', place: number, player: number, how: 'end' | 'break' } |
  { do: 'send', place: number, player: number, messages: Message[], chunking: Chunking } |
  { do: 'shake', place: number, player: number, with: number, index: number, other: number } |
  { do: 'flood', place: number, player: number, with: number } |
  { do: 'garbage', place: number, player: number, bytes: Buffer } |
  { do: 'wait', ms: number }

const attach = fc.record({ do: fc.constant('attach'), place, player, framing: fc.constantFrom('wg', 'len16') })

const step: Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: attach },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('leave'), place, player, how: fc.constantFrom('end', 'break') }) },
  { weight: 12, arbitrary: fc.record({ do: fc.constant('send'), place, player, messages: fc.array(message, { minLength: 1, maxLength: 6 }), chunking }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('shake'), place, player, with: player, index, other: index }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('flood'), place, player, with: player }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('garbage'), place, player, bytes: anyBytes(40) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait'), ms: fc.constantFrom(1, 1000, 5000, PENDING_LIFETIME, 60_000, SESSION_LIFETIME) }) }
)

/** A tunnel, and who is behind it. */
interface Seat {
  place: number
  /** What the relay knows somebody by: id and key together, or nothing that lasts. */
  who: string
  key: number | undefined
  tunnel: FakeTunnel
  framing: Framing
  peer: PacketPeer
  decoder: Decoder
  sink: Sink
  writesRead: number
  datagramsRead: number
}

/** `holder` may send to `to` what is addressed to `index`. */
interface Session {
  place: number
  holder: string
  index: number
  to: string
  at: number
  /** Whether it must be known to the relay; else it may be. */
  isSure: boolean
}

/** `from` has started a handshake that was delivered to `to`. */
interface Started { place: number, from: string, to: string, index: number, at: number }

interface Sent { seat: Seat, message: Message, bytes: Buffer }

function nameOf ({ id, key }: { id: string | undefined, key: number | undefined }): string {
  return `id ${id}, key ${key}`
}

class World {
  readonly #counters = createCounters()
  readonly #clock = new Clock(1000)
  readonly #channels: PacketChannel[]
  readonly #seats: Seat[] = []
  readonly #tunnels: FakeTunnel[] = []
  readonly #sessions: Session[] = []
  readonly #started: Started[] = []
  /** Everybody who has ever been in a place. */
  readonly #everSeen: Array<Set<string>> = [new Set(), new Set()]
  /** When somebody lost everything because another came under the same name. */
  readonly #voidSince = new Map<string, number>()
  /** How many initiations somebody tried to send to another; a burst of five is free. */
  readonly #tries = new Map<string, number>()
  /** Who has ever picked an index for itself towards another. */
  readonly #claimants = new Map<string, Set<string>>()
  #nobodies = 0
  #tags = 0

  constructor () {
    const hub: HubContext = {
      options: readHubOptions({}),
      clock: this.#clock,
      counters: this.#counters,
      detached: (peer) => this.#seats.splice(this.#seats.findIndex((seat) => seat.peer === peer), 1),
      handshakesFail () {},
      handshakesSucceed () {}
    }
    const budget = new Mac1Budget(0)
    this.#channels = [new PacketChannel(hub, budget), new PacketChannel(hub, budget)]
  }

  async take (step: Step): Promise<void> {
    if (step.do === 'wait') return this.#wait(step.ms)
    if (step.do === 'attach') return this.#attach(step.place, step.player, step.framing === 'wg' ? wg : len16)
    const seat = this.#seatOf(step.place, step.player)
    if (seat === undefined) return
    switch (step.do) {
      case 'leave':
        if (step.how === 'end') seat.tunnel.push(null)
        else seat.tunnel.destroy(new Error('broken'))
        await seat.tunnel.receive(Buffer.alloc(0)).catch(() => {})
        break
      case 'send':
        await this.#send(seat, step.messages, step.chunking)
        break
      case 'shake': {
        const other = this.#seatOf(step.place, step.with)
        if (other === undefined || other === seat) return
        await this.#shake(seat, other, step.index, step.other)
        await this.#send(seat, [{ type: 'data', receiver: step.other }], [2 ** 24])
        await this.#send(other, [{ type: 'data', receiver: step.index }], [2 ** 24])
        break
      }
      case 'garbage':
        await seat.tunnel.receive(step.bytes)
        // Behind it, nothing that this tunnel sends need be read as it was meant.
        seat.tunnel.destroy()
        await new Promise((resolve) => setImmediate(resolve))
        // It may have held a small datagram, for the other one of two.
        for (const each of this.#seats) this.#read(each)
        break
      case 'flood': {
        const other = this.#seatOf(step.place, step.with)
        if (other === undefined || other === seat) return
        for (let i = 0; i < 12; i++) {
          this.#wait(1000)
          await this.#shake(seat, other, 100 + i, 100 + i)
        }
        for (const { who } of [seat, other]) this.#voidSince.set(`${step.place} ${who}`, this.#clock.now)
        this.#checkBounds()
      }
    }
  }

  /** Ends all tunnels, so that their timers end. */
  end (): void {
    for (const tunnel of this.#tunnels) tunnel.destroy()
  }

  #seatOf (place: number, player: number): Seat | undefined {
    const { id, key } = CAST[player]!
    return this.#seats.find((seat) => seat.place === place && seat.key === key && seat.peer.admitted.id === id)
  }

  #attach (place: number, player: number, framing: Framing): void {
    const { id, key } = CAST[player]!
    const peerAdmitted = admitted({
      channel: { scope: '/', name: String(place), kind: 'packet' },
      id,
      publicKey: key === undefined ? undefined : keys[key]!,
      address: '192.0.2.1',
      client: '192.0.2.1',
      framing
    })
    const channel = this.#channels[place]!
    try {
      channel.checkRoom(peerAdmitted)
    } catch (error) {
      assert.equal((error as { code: string }).code, 'FST_RELAY_REPLACED_TOO_OFTEN')
      return
    }
    const who = id === undefined ? `nobody ${this.#nobodies++}` : nameOf({ id, key })
    for (const other of CAST) {
      const isReplaced = (other.id !== undefined && other.id === id) || (other.key !== undefined && other.key === key)
      if (isReplaced && nameOf(other) !== who) this.#voidSince.set(`${place} ${nameOf(other)}`, this.#clock.now)
    }
    const tunnel = new FakeTunnel()
    this.#tunnels.push(tunnel)
    const peer = channel.attach(peerAdmitted, tunnel.tunnel)
    const sink = new Sink()
    this.#everSeen[place]!.add(who)
    this.#seats.push({
      place, who, key, tunnel, framing, peer, sink, decoder: framing.createDecoder(sink, { maxPacketSize: 65535 }), writesRead: 0, datagramsRead: 0
    })
    for (const each of this.#seats) assert.ok(each === this.#seats.find((seat) => seat.place === each.place && seat.who === each.who), 'nobody is here twice')
  }

  #wait (ms: number): void {
    this.#clock.now += ms
    for (const seat of this.#seats) seat.peer.receivedAt = this.#clock.now
    for (const channel of this.#channels) channel.sweep()
  }

  #checkBounds (): void {
    for (const { place, peer } of this.#seats) {
      const { sessions, partners } = peer.identity!
      assert.ok(sessions.size <= SESSIONS_PER_PAIR * this.#everSeen[place]!.size, `${sessions.size} sessions`)
      assert.ok(partners.length <= MAX_PARTNERS, `${partners.length} partners`)
    }
  }

  async #shake (from: Seat, to: Seat, index: number, otherIndex: number): Promise<void> {
    await this.#send(from, [{ type: 'initiation', index, to: to.key }], [2 ** 24])
    await this.#send(to, [{ type: 'response', index: otherIndex, receiver: index }], [2 ** 24])
  }

  /** Sends messages in one go, and judges each delivery. */
  async #send (from: Seat, messages: Message[], chunking: Chunking): Promise<void> {
    if (!this.#seats.includes(from)) return
    const sent: Sent[] = messages.map((message) => ({ seat: from, message, bytes: this.#bytesOf(message) }))
    const drops = this.#drops()
    for (const chunk of cut(frames(from.framing, sent.map(({ bytes }) => bytes)), chunking)) await from.tunnel.receive(chunk)
    const receivers = sent.map((): Seat[] => [])
    for (const seat of this.#seats) {
      let last = -1
      for (const datagram of this.#read(seat)) {
        const at = sent.findIndex(({ bytes }) => bytes.equals(datagram))
        assert.ok(at >= 0, `${seat.who} gets what nobody has sent now`)
        assert.ok(at > last, `${seat.who} gets it twice, or out of order`)
        last = at
        receivers[at]!.push(seat)
      }
    }
    const undelivered = receivers.filter((seats) => seats.length === 0).length
    assert.ok(this.#drops() - drops >= undelivered, 'neither delivered nor counted as dropped')
    sent.forEach((each, at) => this.#judge(each, receivers[at]!))
  }

  #bytesOf (message: Message): Buffer {
    const tag = ++this.#tags
    switch (message.type) {
      case 'initiation': return initiation(message.index, message.to === undefined ? undefined : keys[message.to]!)
      case 'response': return response(message.index, message.receiver)
      case 'cookie': return cookieReply(message.receiver)
      case 'data': return transportData(message.receiver)
      case 'other': {
        const bytes = Buffer.alloc(TAG_AT + 4)
        message.head.copy(bytes)
        bytes.writeUInt32LE(tag, TAG_AT)
        return bytes
      }
    }
  }

  #read (seat: Seat): Buffer[] {
    for (; seat.writesRead < seat.tunnel.writes.length; seat.writesRead++) {
      assert.equal(seat.decoder.push(seat.tunnel.writes[seat.writesRead]!), undefined)
    }
    const datagrams = seat.sink.datagrams.slice(seat.datagramsRead)
    seat.datagramsRead += datagrams.length
    return datagrams
  }

  #drops (): number {
    return Object.values(this.#counters.drops).reduce((sum, count) => sum + count, 0)
  }

  /** Tests who got a message, and notes what follows from it. */
  #judge ({ seat: from, message }: Sent, receivers: Seat[]): void {
    const { now } = this.#clock
    const { place } = from
    const here = this.#seats.filter((seat) => seat.place === place && seat !== from)
    for (const to of receivers) {
      assert.equal(to.place, place, 'another channel')
      assert.notEqual(to, from, 'back to who sent it')
    }
    if (message.type !== 'initiation') assert.ok(receivers.length <= 1, 'more than one')
    const [to] = receivers
    const areTwo = this.#everSeen[place]!.size === 2 && here.length === 1

    switch (message.type) {
      case 'initiation': {
        const holder = message.to === undefined ? undefined : here.find(({ key }) => key === message.to)
        const isKnown = message.to !== undefined && [...this.#everSeen[place]!].some((who) => who.endsWith(`key ${message.to}`))
        for (const seat of here) {
          const isReceiver = receivers.includes(seat)
          if (holder !== undefined ? seat !== holder : seat.key !== undefined) assert.ok(!isReceiver, 'an initiation for somebody else')
          const claimants = this.#claimantsOf(place, seat.who, message.index)
          const pair = `${place} ${from.who} > ${seat.who}`
          const tries = this.#tries.get(pair) ?? 0
          const isMeant = holder !== undefined ? seat === holder : !isKnown && seat.key === undefined
          const isFree = [...claimants].every((who) => who === from.who)
          if (isMeant && isFree && tries < INITIATION_BURST_TO_ONE && from.key !== message.to) assert.ok(isReceiver, 'an initiation is not delivered')
          // One that is made for its own sender is for somebody without a known key, too.
          if (isMeant || isReceiver || from.key === message.to) this.#tries.set(pair, tries + 1)
          if (!isReceiver) continue
          claimants.add(from.who)
          this.#started.push({ place, from: from.who, to: seat.who, index: message.index, at: now })
        }
        break
      }
      case 'response': {
        const isAsked = (each: Started) => each.place === place && each.to === from.who && each.index === message.receiver && now - each.at < PENDING_LIFETIME
        // The response to somebody who is away for a moment is lost, but what it agrees on may hold.
        const started = this.#started.findIndex((each) => isAsked(each) &&
          (to === undefined ? here.every(({ who }) => who !== each.from) : each.from === to.who))
        assert.ok(started >= 0 || to === undefined, 'a response to who has asked nothing')
        if (started < 0) break
        const [{ from: initiator }] = this.#started.splice(started, 1) as [Started]
        this.#claimantsOf(place, initiator, message.index).add(from.who)
        const common = { place, at: now, isSure: to !== undefined }
        this.#sessions.push(
          { ...common, holder: from.who, index: message.receiver, to: initiator },
          { ...common, holder: initiator, index: message.index, to: from.who })
        break
      }
      case 'cookie':
      case 'data': {
        const mine = this.#sessions.filter((session) => session.place === place && session.holder === from.who)
        const leading = mine.filter(({ index, at }) => index === message.receiver && now - at < SESSION_LIFETIME)
        const kept = leading.filter((session) => session.isSure && !this.#isVoid(session, session.to) && !this.#isVoid(session, session.holder))
        const isAsked = message.type === 'cookie' && to !== undefined && this.#started.some((each) => each.place === place &&
          each.from === to.who && each.to === from.who && each.index === message.receiver && now - each.at < PENDING_LIFETIME)
        if (to !== undefined) {
          const isTheOther = message.type === 'data' && here.length === 1
          assert.ok(isTheOther || isAsked || leading.some((session) => session.to === to.who), `${message.type} without a handshake`)
          assert.ok(isAsked || kept.every((session) => session.to === to.who), 'one has taken the session of another')
        } else if (kept.length > 0) {
          const isHere = here.some(({ who }) => who === kept.at(-1)!.to)
          assert.ok(!isHere, `${message.type} of a session is not delivered`)
        } else if (areTwo && message.type === 'data') {
          assert.fail('data is not delivered to the other one of two')
        }
        break
      }
      case 'other':
        if (to !== undefined) assert.equal(here.length, 1, 'what is no WireGuard, among more than two')
        else assert.ok(!areTwo, 'what is no WireGuard is not delivered to the other one of two')
    }
  }

  #claimantsOf (place: number, who: string, index: number): Set<string> {
    const key = `${place} ${who} ${index}`
    let claimants = this.#claimants.get(key)
    if (claimants === undefined) this.#claimants.set(key, claimants = new Set())
    return claimants
  }

  /** Whether somebody may have been made to forget what was agreed. */
  #isVoid ({ place, at }: Session, who: string): boolean {
    const hasLeftForGood = who.startsWith('nobody') && !this.#seats.some((seat) => seat.who === who)
    if (hasLeftForGood) return true
    const since = this.#voidSince.get(`${place} ${who}`)
    return since !== undefined && since >= at
  }
}

const routing: Fuzz = {
  name: 'routing',
  title: 'a datagram only goes to peers of its channel, and only to those whom its sender has met',
  runs: 150,
  prepare: () => fc.asyncProperty(
    fc.array(attach, { minLength: 2, maxLength: 10, size: 'max' }),
    fc.array(step, { maxLength: 60, size: 'max' }),
    async (arrivals, steps) => {
      const world = new World()
      try {
        for (const step of [...arrivals, ...steps]) await world.take(step)
      } finally {
        world.end()
      }
    })
}

export const routingFuzzes: Fuzz[] = [routing]
