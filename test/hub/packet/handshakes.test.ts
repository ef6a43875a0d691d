import t from 'tap'
import { len16 } from '../../../lib/framing/len16.ts'
import { NOTICE, readNotice, wg } from '../../../lib/framing/wg.ts'
import { Clock } from '../../../lib/hub/clock.ts'
import { createCounters } from '../../../lib/hub/counters.ts'
import type { HandshakeFaultInfo } from '../../../lib/hub/packet/handshake-record.ts'
import { faultText } from '../../../lib/hub/packet/handshake-words.ts'
import { PacketChannel } from '../../../lib/hub/packet/packet-channel.ts'
import type { PacketPeer } from '../../../lib/hub/packet/packet-peer.ts'
import { readHubOptions } from '../../../lib/hub/hub-options.ts'
import { admitted } from '../../helpers/admitted.ts'
import { FakeTunnel } from '../../helpers/fake-tunnel.ts'
import { frames } from '../../helpers/fake-relay.ts'
import { decode } from '../../helpers/sink.ts'
import { initiation, publicKey, response } from '../../helpers/wireguard-messages.ts'

const BEGUN_EVERY_MS = 5100

interface Seat { tunnel: FakeTunnel, peer: PacketPeer, isWg: boolean }

/** Channels of one hub, whose clock the test moves. */
class World {
  readonly counters = createCounters()
  /** What the operator is told. */
  readonly lines: string[] = []
  readonly #clock = new Clock(1000)
  readonly #channels = new Map<string, PacketChannel>()
  readonly #budget: { take: () => boolean }
  #index = 0

  constructor ({ mac1Tests = 20_000 } = {}) {
    this.#budget = { take: () => mac1Tests-- > 0 }
  }

  join (id: string | undefined, { key, channel = 'home', framing = wg }: { key?: Buffer, channel?: string, framing?: typeof wg } = {}): Seat {
    let members = this.#channels.get(channel)
    if (members === undefined) {
      members = new PacketChannel({
        options: readHubOptions({}),
        clock: this.#clock,
        counters: this.counters,
        detached: () => {},
        handshakesFail: (peer: { id: string }, fault: HandshakeFaultInfo) => this.lines.push(`${peer.id}: ${faultText(fault)}`),
        handshakesSucceed: (peer, by) => this.lines.push(`${peer.id}: ${by} answers again`)
      }, this.#budget)
      this.#channels.set(channel, members)
    }
    const tunnel = new FakeTunnel({ highWaterMark: 65536 })
    const peer = members.attach(admitted({ channel: { scope: '', name: channel, kind: 'packet' }, id, publicKey: key, framing }), tunnel.tunnel)
    return { tunnel, peer, isWg: framing === wg }
  }

  wait (ms: number): void {
    this.#clock.now += ms
  }

  /** Begins a handshake so often, as WireGuard does while it gets no answer. */
  async begin (from: Seat, count: number, to?: Buffer): Promise<void> {
    for (let i = 0; i < count; i++) {
      await this.send(from, initiation(++this.#index, to))
      this.wait(BEGUN_EVERY_MS)
    }
  }

  /** A handshake that is answered. */
  async shake (from: Seat, to: Seat, key?: Buffer): Promise<void> {
    await this.send(from, initiation(++this.#index, key))
    const index = this.#index
    await this.send(to, response(++this.#index, index))
  }

  async send ({ tunnel, isWg }: Seat, datagram: Buffer): Promise<void> {
    await tunnel.receive(frames(isWg ? wg : len16, [datagram]))
  }
}

/** The texts of the notices that came, and nothing that came twice. */
function notices ({ tunnel }: Seat): string[] {
  const { sink } = decode(wg, tunnel.writes, 65535)
  return sink.controls.filter(({ type }) => type === NOTICE).map(({ payload }) => readNotice(payload, 0, payload.length)!.text)
}

t.test('who is alone is told so', async (t) => {
  const world = new World()
  const a = world.join('a', { key: publicKey() })
  await world.begin(a, 2, publicKey())
  t.same(notices(a), [], 'the other may be about to come')
  await world.begin(a, 10, publicKey())
  t.same(notices(a), ["you are alone in the network home: is the other device's sidecar running, with a token for the same network?"])
  t.same(world.lines, ["a: no other peer is in its channel: is the other device's sidecar running, and does identify() give it the same channel?"])
  t.match(a.peer.info(), { dropsByReason: { 'no-responder': 12 }, handshakeFaults: [{ fault: 'alone', count: 12 }], lastHandshake: undefined })
  t.same(world.counters.handshakeFaults, { alone: 1 })
})

t.test('a key of another network is told as one that nobody has', async (t) => {
  const told = []
  for (const channel of ['home', 'office']) {
    const world = new World()
    const [a, key] = [world.join('a', { key: publicKey() }), publicKey()]
    world.join('b', { key: publicKey() })
    // Once in another network, once nowhere.
    if (channel === 'office') world.join('secret', { key, channel })
    await world.begin(a, 20, key)
    told.push({ notices: notices(a), lines: world.lines, counters: world.counters })
  }
  t.same(told[0], told[1], 'all is the same')
  t.same(told[0]!.notices, ["no device in the network home has the public key that your WireGuard asks for: is PublicKey under [Peer] right here, and the other device's publicKey right in the relay's app?"])
})

t.test('a peer that is not connected, or does not answer, is named', async (t) => {
  const world = new World()
  const [keyB, keyC] = [publicKey(), publicKey()]
  const [a, b, c] = [world.join('a', { key: publicKey() }), world.join('b', { key: keyB }), world.join('c', { key: keyC })]
  await world.shake(a, b, keyB)
  world.wait(10_000)
  b.tunnel.destroy()
  await new Promise((resolve) => setImmediate(resolve))
  await world.begin(a, 3, keyB)
  await world.begin(a, 3, keyC)
  t.equal(notices(a).length, 2)
  await world.begin(a, 1, keyC)
  t.same(notices(a), [
    "b has answered WireGuard's handshake",
    '3 handshakes to b were not delivered: it is not connected to the relay at the moment',
    "3 handshakes to c were not answered: is WireGuard running there, with this device's public key?"
  ])
  t.match(a.peer.info(), {
    lastHandshake: { id: 'b' },
    handshakes: [{ id: 'c', sent: 4, answered: 0, unanswered: 4, lastAt: undefined }, { id: 'b', sent: 1, answered: 1, unanswered: 0 }],
    handshakeFaults: [{ fault: 'peer-away', id: 'b', count: 3 }, { fault: 'unanswered', id: 'c', count: 3 }]
  })
  await world.shake(a, c, keyC)
  t.same(notices(a).slice(3), ["c has answered WireGuard's handshake"])
  t.same(notices(c), [], 'who has begun nothing is told nothing')
  t.same(world.lines.slice(2), ['a: c answers again'])
  t.match(a.peer.info().handshakeFaults.map(({ id }) => id), ['b'])
  t.match(c.peer.info(), { lastHandshake: { id: 'a' }, handshakes: [{ id: 'a', sent: 0 }], handshakeFaults: [] })
})

t.test('of those whose keys the relay does not know, the number is told', async (t) => {
  const world = new World()
  const [a, b] = [world.join('a'), world.join('b')]
  await world.begin(a, 4)
  t.same(notices(a), ['3 handshakes were not answered by the one device in the network home whose public key the relay does not know: ' +
    "is WireGuard running there, and does each side have the other's public key?"])
  world.join('c')
  const d = world.join('d')
  await world.begin(d, 4)
  t.match(notices(d), [/^3 handshakes were not answered by any of the 3 devices in the network home whose public key the relay does not know/])
  await world.shake(d, b)
  world.wait(120_000)
  await world.begin(d, 3)
  t.same(notices(d).slice(1), ["b has answered WireGuard's handshake"], 'a bystander that does not answer is no fault')
  t.match(d.peer.info().handshakes.find(({ id }) => id === 'b'), { sent: 1, answered: 1 })
})

t.test('a name that says nothing is not told, nor is a public key', async (t) => {
  const world = new World()
  const key = publicKey()
  const a = world.join('a', { key: publicKey() })
  const [random] = [world.join(undefined), world.join(key.toString('base64'), { key })]
  await world.shake(a, random!)
  world.wait(10_000)
  await world.begin(a, 4, key)
  t.same(notices(a), [
    "another peer has answered WireGuard's handshake",
    "3 handshakes to the peer with that public key were not answered: is WireGuard running there, with this device's public key?"
  ])
  t.notMatch(a.tunnel.writes.map(String).join(), key.toString('base64'))
})

t.test('names that are long, or that a terminal would obey, are made harmless', async (t) => {
  const world = new World()
  const key = publicKey()
  const a = world.join('a', { key: publicKey(), channel: `\u001b[2J${'x'.repeat(250)}` })
  world.join(`\u001b]0;${'€'.repeat(250)}`, { key, channel: `\u001b[2J${'x'.repeat(250)}` })
  await world.begin(a, 4, key)
  await world.begin(a, 4, publicKey())
  const [unanswered, unknown] = notices(a)
  t.match(unanswered, /^3 handshakes to \]0;€+… were not answered: .*public key\?$/, 'with the end of the sentence')
  t.match(unknown, /^no device in the network \[2Jx+… has/)
  t.equal(world.lines.length, 2)
})

t.test('drops for rates, budgets and collisions are told if they last', async (t) => {
  const world = new World()
  const key = publicKey()
  const [a, b] = [world.join('a', { key: publicKey() }), world.join('b', { key: publicKey() })]
  world.join('c', { key })
  for (let second = 0; second < 15; second++) {
    for (let i = 0; i < 20; i++) await world.send(a, initiation(1000 + i, key))
    await world.send(b, initiation(1000, key))
    world.wait(1000)
  }
  t.match(notices(a), [/^\d+ handshakes to c were not answered/, /^\d+ handshakes to c were dropped: your WireGuard starts too many$/])
  t.match(notices(b), [/^9 handshakes to c were dropped: their session index belongs to another device there$/])
  const poor = new World({ mac1Tests: 0 })
  const d = poor.join('d', { key: publicKey() })
  for (let i = 0; i < 10; i++) poor.join(`other ${i}`, { key: publicKey() })
  await poor.begin(d, 3, publicKey())
  t.same(notices(d), ['3 handshakes were dropped: too many are for public keys that no device here has'])
})

t.test('a flood of initiations makes neither lines nor notices', async (t) => {
  const world = new World()
  const a = world.join('a', { key: publicKey() })
  for (let i = 0; i < 5; i++) world.join(`other ${i}`, { key: publicKey() })
  const keys = Array.from({ length: 100 }, () => publicKey())
  for (let second = 0; second < 30; second++) {
    const messages = Array.from({ length: 1000 }, (_, i) => initiation(i, keys[i % keys.length]))
    await a.tunnel.receive(frames(wg, messages))
    world.wait(1000)
  }
  t.same(notices(a).length, world.lines.length)
  t.ok(world.lines.length <= 3, world.lines.join('\n'))
  t.ok(a.peer.info().drops > 20_000)
})

t.test('peers that cannot be told are not: len16 has no such frame', async (t) => {
  const world = new World()
  const a = world.join('a', { framing: len16 })
  await world.begin(a, 5)
  t.equal(a.tunnel.writes.length, 0)
  t.equal(world.lines.length, 1, 'the operator is')
})

t.test('one whose socket is blocked is not told', async (t) => {
  const world = new World()
  const a = world.join('a')
  await world.begin(a, 2)
  Object.defineProperty(a.tunnel, 'writableNeedDrain', { value: true })
  await world.begin(a, 2)
  t.same(notices(a), [])
  t.equal(world.lines.length, 1)
})
