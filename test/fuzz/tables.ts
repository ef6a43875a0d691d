import assert from 'node:assert/strict'
import fc, { type Arbitrary } from 'fast-check'
import { Identity } from '../../lib/hub/packet/identity.ts'
import { WaitQueue } from '../../lib/util/wait-queue.ts'
import type { Fuzz } from './fuzz.ts'

const SESSION_LIFETIME = 240_000
const PENDING_LIFETIME = 15_000
const MAX_SESSIONS = 1024
const MAX_SESSIONS_PER_PAIR = 8
const MAX_PENDING_PER_SENDER = 256

// Few identities and few indices: they shall get into each other's way.
const NAMES = 6
const identityNumber = fc.nat(NAMES - 1)
const index = fc.oneof({ weight: 9, arbitrary: fc.nat(11) }, { weight: 1, arbitrary: fc.constantFrom(2 ** 31, 2 ** 32 - 1) })
const pause = fc.oneof(fc.nat(1000), fc.constantFrom(PENDING_LIFETIME - 1, PENDING_LIFETIME, SESSION_LIFETIME - 1, SESSION_LIFETIME))

function newIdentity (name: number): Identity {
  return new Identity(String(name), true, undefined)
}

type SessionStep =
  { do: 'install' | 'lookUp' | 'peek', index: number, to: number } |
  { do: 'flood', count: number, to: number } |
  { do: 'remove', to: number } |
  { do: 'wait', ms: number } |
  { do: 'sweep' }

const sessionStep: Arbitrary<SessionStep> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ do: fc.constantFrom('install', 'lookUp', 'peek'), index, to: identityNumber }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('flood'), count: fc.constantFrom(20, 300, 2100), to: identityNumber }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove'), to: identityNumber }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait'), ms: pause }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('sweep') }) }
)

/** The table of sessions as a list, the least recently used first. */
class SessionModel {
  sessions: Array<{ index: number, to: Identity, expiresAt: number }> = []

  install (index: number, to: Identity, now: number): void {
    this.sessions = this.sessions.filter((session) => session.index !== index)
    const ofPair = this.sessions.filter((session) => session.to === to)
    const leaving = ofPair.length >= MAX_SESSIONS_PER_PAIR
      ? ofPair[0]
      : this.sessions.length >= MAX_SESSIONS ? this.sessions[0] : undefined
    this.sessions = this.sessions.filter((session) => session !== leaving)
    this.sessions.push({ index, to, expiresAt: now + SESSION_LIFETIME })
  }

  find (index: number, now: number, isUse: boolean): Identity | undefined {
    const session = this.sessions.find((session) => session.index === index && session.expiresAt > now && !session.to.isRemoved)
    if (session === undefined) return undefined
    if (isUse) this.sessions = [...this.sessions.filter((each) => each !== session), session]
    return session.to
  }
}

const sessions: Fuzz = {
  name: 'sessions',
  title: 'a table of sessions leads where the last handshake said, to nobody who has left, and has its bounds',
  runs: 30,
  prepare: () => fc.property(fc.array(sessionStep, { maxLength: 100, size: 'max' }), (steps) => {
    const { sessions } = newIdentity(-1)
    const identities = Array.from({ length: NAMES }, (_, name) => newIdentity(name))
    const model = new SessionModel()
    let now = 0
    let others = 100
    const install = (index: number, to: Identity) => {
      sessions.install(index, to, now)
      model.install(index, to, now)
    }
    for (const step of steps) {
      switch (step.do) {
        case 'install': install(step.index, identities[step.to]!); break
        case 'lookUp': assert.equal(sessions.lookUp(step.index, now), model.find(step.index, now, true)); break
        case 'peek': assert.equal(sessions.peek(step.index, now), model.find(step.index, now, false)); break
        case 'flood':
          // Half of them for one identity, half for ever new ones.
          for (let i = 0; i < step.count; i++) {
            install(others, i % 2 === 0 ? identities[step.to]! : newIdentity(others))
            others++
          }
          break
        case 'remove':
          identities[step.to]!.remove()
          identities[step.to] = newIdentity(step.to)
          break
        case 'wait': now += step.ms; break
        case 'sweep':
          model.sessions = model.sessions.filter(({ expiresAt, to }) => expiresAt > now && !to.isRemoved)
          assert.equal(sessions.sweep(now), model.sessions.length > 0)
      }
      assert.equal(sessions.size, model.sessions.length)
      assert.ok(sessions.size <= MAX_SESSIONS)
    }
    for (const { index } of [...model.sessions]) assert.equal(sessions.peek(index, now), model.find(index, now, false))
  })
}

type PendingStep =
  { do: 'add' | 'ask' | 'use', at: number, index: number, from: number } |
  { do: 'flood', at: number, from: number, count: number } |
  { do: 'remove', from: number } |
  { do: 'sweep', at: number } |
  { do: 'wait', ms: number }

const pendingStep: Arbitrary<PendingStep> = fc.oneof(
  { weight: 12, arbitrary: fc.record({ do: fc.constantFrom('add', 'ask', 'use'), at: identityNumber, index, from: identityNumber }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('flood'), at: identityNumber, from: identityNumber, count: fc.nat(300) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('remove'), from: identityNumber }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('sweep'), at: identityNumber }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('wait'), ms: pause }) }
)

interface PendingModel { at: Identity, index: number, from: Identity, expiresAt: number }

const pendingInitiations: Fuzz = {
  name: 'pending-initiations',
  title: 'a pending initiation names who sent it and nobody else, and of each sender so many are kept, wherever they went',
  runs: 50,
  prepare: () => fc.property(fc.array(pendingStep, { maxLength: 100, size: 'max' }), (steps) => {
    const identities = Array.from({ length: NAMES }, (_, name) => newIdentity(name))
    /** All of them, the oldest first. */
    let model: PendingModel[] = []
    let now = 0
    const add = (at: Identity, index: number, from: Identity) => {
      at.pending.add(index, from, now)
      model = model.filter((pending) => pending.at !== at || pending.index !== index)
      const sent = model.filter((pending) => pending.from === from)
      if (sent.length >= MAX_PENDING_PER_SENDER) model.splice(model.indexOf(sent[0]!), 1)
      model.push({ at, index, from, expiresAt: now + PENDING_LIFETIME })
    }
    const ask = (at: Identity, index: number) => {
      const pending = model.find((pending) => pending.at === at && pending.index === index && pending.expiresAt > now && !pending.from.isRemoved)
      assert.equal(at.pending.senderOf(index, now), pending?.from)
    }
    for (const step of steps) {
      switch (step.do) {
        case 'add': add(identities[step.at]!, step.index, identities[step.from]!); break
        case 'ask': ask(identities[step.at]!, step.index); break
        case 'use':
          identities[step.at]!.pending.remove(step.index)
          model = model.filter(({ at, index }) => at !== identities[step.at]! || index !== step.index)
          break
        case 'flood':
          for (let i = 0; i < step.count; i++) add(identities[step.at]!, 100 + i, identities[step.from]!)
          break
        case 'remove': {
          const leaving = identities[step.from]!
          leaving.remove()
          model = model.filter(({ at }) => at !== leaving)
          identities[step.from] = newIdentity(step.from)
          break
        }
        case 'sweep':
          identities[step.at]!.pending.sweep(now)
          model = model.filter(({ at, expiresAt }) => at !== identities[step.at]! || expiresAt > now)
          break
        case 'wait': now += step.ms
      }
    }
    for (const identity of identities) {
      for (const { index } of model) ask(identity, index)
      for (let index = 0; index < 400; index++) ask(identity, index)
    }
  })
}

const waitQueueStep = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('add'), size: fc.oneof(fc.nat(3000), fc.constantFrom(0, 1, 65535, 65539, 256 * 1024, 256 * 1024 + 1)), isHandshake: fc.boolean(), count: fc.constant(1) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('add'), size: fc.nat(500), isHandshake: fc.boolean(), count: fc.integer({ min: 1, max: 600 }) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('add run'), size: fc.nat(1500), isHandshake: fc.boolean(), count: fc.integer({ min: 1, max: 600 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('take'), maxBytes: fc.constantFrom(0, 3000, 65536), count: fc.integer({ min: 1, max: 400 }) }) }
)

/** A datagram in the memory it came in. */
interface WaitingDatagram {
  memory: Buffer
  start: number
  size: number
  isHandshake: boolean
}

const waitQueue: Fuzz = {
  name: 'wait-queue',
  title: 'what waits for a blocked socket is bounded, handshake messages first, the oldest data given up first',
  runs: 80,
  prepare: () => fc.property(fc.array(waitQueueStep, { maxLength: 40, size: 'max' }), (steps) => {
    const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
    let waiting: WaitingDatagram[] = []
    const next = (isHandshake: boolean) => waiting.find((each) => each.isHandshake === isHandshake)

    const add = (size: number, count: number, isHandshake: boolean) => {
      const memory = Buffer.alloc(size * count)
      const added = Array.from({ length: count }, (_, i) => ({ memory, start: i * size, size, isHandshake }))
      waiting.push(...added)
      let bytes = waiting.reduce((sum, { size }) => sum + size, 0)
      let expected = 0
      for (; waiting.length > 512 || bytes > 256 * 1024; expected++) {
        const leaving = next(false) ?? next(true)
        bytes -= leaving!.size
        waiting = waiting.filter((each) => each !== leaving)
      }
      assert.equal(queue.add(memory, added.map(({ start }) => start + size), isHandshake), expected)
    }

    const take = (maxBytes: number) => {
      const first = next(true) ?? next(false)
      const taken = queue.take(maxBytes)
      if (first === undefined) return assert.equal(taken, undefined)
      const ofRun = waiting.filter(({ memory }) => memory === first.memory)
      const fitting = ofRun.filter(({ start, size }) => start === first.start || start + size - first.start <= maxBytes)
      assert.equal(taken!.count, fitting.length)
      assert.equal(taken!.bytes.buffer, first.memory.buffer)
      assert.equal(taken!.bytes.byteOffset - first.memory.byteOffset, first.start)
      assert.equal(taken!.bytes.length, fitting.reduce((sum, { size }) => sum + size, 0))
      waiting = waiting.filter((each) => !fitting.includes(each))
    }

    for (const step of steps) {
      if (step.do === 'take') {
        for (let i = 0; i < step.count; i++) take(step.maxBytes)
      } else if (step.do === 'add') {
        for (let i = 0; i < step.count; i++) add(step.size, 1, step.isHandshake)
      } else {
        add(step.size, step.count, step.isHandshake)
      }
      assert.equal(queue.length, waiting.length)
      assert.equal(queue.hasNoData, !waiting.some(({ isHandshake }) => !isHandshake))
    }
  })
}

export const tableFuzzes: Fuzz[] = [sessions, pendingInitiations, waitQueue]
