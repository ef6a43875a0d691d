import { randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { Framing } from '../../../lib/framing/framing.ts'
import { len16 } from '../../../lib/framing/len16.ts'
import { wg } from '../../../lib/framing/wg.ts'
import { Clock } from '../../../lib/hub/clock.ts'
import { createCounters } from '../../../lib/hub/counters.ts'
import { PacketChannel } from '../../../lib/hub/packet/packet-channel.ts'
import { readHubOptions } from '../../../lib/hub/hub-options.ts'
import { admitted } from '../../helpers/admitted.ts'
import { FakeTunnel } from '../../helpers/fake-tunnel.ts'
import { frames } from '../../helpers/fake-relay.ts'
import { detached, startRelay } from '../../helpers/relay.ts'
import { decode } from '../../helpers/sink.ts'
import { askForTunnel, openTunnel, settle, until, type Tunnel, type TunnelOptions } from '../../helpers/tunnel.ts'
import { cookieReply, initiation, publicKey, response, transportData } from '../../helpers/wireguard-messages.ts'

async function openAll (t: Test, app: FastifyInstance, all: TunnelOptions[]): Promise<Tunnel[]> {
  const tunnels: Tunnel[] = []
  for (const options of all) tunnels.push(await openTunnel(t, app, options))
  return tunnels
}

/** Three peers without keys, with the ids a, b and c. */
async function openThree (t: Test, app: FastifyInstance): Promise<[Tunnel, Tunnel, Tunnel]> {
  return await openAll(t, app, [{ id: 'a' }, { id: 'b' }, { id: 'c' }]) as [Tunnel, Tunnel, Tunnel]
}

/** A handshake from `a` with the index `ia` to `b` with the index `ib`; `bystanders` see the initiation. */
async function shakeHands (a: Tunnel, b: Tunnel, ia: number, ib: number, ...bystanders: Tunnel[]): Promise<void> {
  a.send(initiation(ia))
  await settle(a, b)
  b.send(response(ib, ia))
  await settle(a, b, ...bystanders)
  for (const tunnel of [a, b, ...bystanders]) tunnel.take()
}

/** Sends, and tells what then came to each of `all`. */
async function send (from: Tunnel, datagrams: Buffer[], all: Tunnel[]): Promise<Buffer[][]> {
  from.send(...datagrams)
  await settle(from, ...all)
  return all.map((tunnel) => tunnel.take())
}

/** The drops that were counted, by reason. */
function drops (app: FastifyInstance): Record<string, number> {
  return Object.fromEntries(Object.entries(app.relayHub.stats().drops).filter(([, count]) => count > 0))
}

async function gone (app: FastifyInstance, tunnel: Tunnel): Promise<void> {
  const before = app.relayHub.stats().peers
  tunnel.socket.destroy()
  await until(() => app.relayHub.stats().peers < before)
}

// Who meets whom.

t.test('channels of another name or another scope never meet, nor does a stream channel of the same name', async (t) => {
  const app = await startRelay(t)
  const [a, b, away, other] = await openAll(t, app, [{}, {}, { path: '/relay/away' }, { path: '/other/home' }]) as [Tunnel, Tunnel, Tunnel, Tunnel]
  const raw = await openTunnel(t, app, { framing: 'raw' })
  t.same(app.relayHub.channels().map(({ scope, name, kind, peers }) => [scope, name, kind, peers]), [
    ['/relay/:network', 'home', 'packet', 2], ['/relay/:network', 'away', 'packet', 1],
    ['/other/:network', 'home', 'packet', 1], ['/relay/:network', 'home', 'stream', 1]
  ])
  const datagrams = [initiation(1), transportData(5), Buffer.from('anything')]
  t.same(await send(a, datagrams, [b, away, other]), [datagrams, [], []])
  t.equal(raw.bytes.length, 0)
  for (const alone of [away, other]) {
    t.same(await send(alone, datagrams, [a, b, away, other]), [[], [], [], []])
  }
  t.same(drops(app), { 'no-responder': 2, 'no-session': 2, unroutable: 2 })
})

// Initiations.

t.test('without keys an initiation goes to every other peer once, and not back', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  const message = initiation(1)
  t.same(await send(a, [message], [a, b, c]), [[], [message], [message]])
  t.match(app.relayHub.stats().initiations, { unicast: 0, fannedOut: 1, unmatched: 0 })
})

t.test('an initiation reaches the one peer whose key its mac1 was made with', async (t) => {
  const app = await startRelay(t)
  const [keyB, keyC] = [publicKey(), publicKey()]
  const [a, b, c, d] = await openAll(t, app, [{ key: publicKey() }, { key: keyB }, { key: keyC }, {}]) as [Tunnel, Tunnel, Tunnel, Tunnel]
  const [forB, forC] = [initiation(1, keyB), initiation(2, keyC)]
  t.same(await send(a, [forB, forC], [a, b, c, d]), [[], [forB], [forC], []])
  const fromKeyless = initiation(3, keyC)
  t.same(await send(d, [fromKeyless], [a, b, c, d]), [[], [], [fromKeyless], []])
  t.match(app.relayHub.stats().initiations, { unicast: 3, fannedOut: 0, unmatched: 0 })
})

t.test('a peer that was away when an initiation came for it has nothing to respond to', async (t) => {
  const app = await startRelay(t)
  const [keyB, keyC] = [publicKey(), publicKey()]
  const [a, b, c] = await openAll(t, app, [{ key: publicKey() }, { key: keyB }, { key: keyC }]) as [Tunnel, Tunnel, Tunnel]
  // What it has sent makes the relay remember it.
  await send(b, [initiation(10, keyC)], [a, c])
  await gone(app, b)
  t.same(await send(a, [initiation(1, keyB)], [a, c]), [[], []])
  const back = await openTunnel(t, app, { key: keyB })
  t.same(await send(back, [response(2, 1)], [a, c]), [[], []])
  t.match(drops(app), { 'peer-away': 1, 'no-pending': 1 })
})

t.test('an initiation for none of the known keys goes to the peers without one', async (t) => {
  const app = await startRelay(t)
  const ownKey = publicKey()
  const [a, b, c, d] = await openAll(t, app, [{ key: ownKey }, { key: publicKey() }, {}, {}]) as [Tunnel, Tunnel, Tunnel, Tunnel]
  const messages = [initiation(1, publicKey()), initiation(2, ownKey)]
  t.same(await send(a, messages, [a, b, c, d]), [[], [], messages, messages])
  t.match(app.relayHub.stats().initiations, { unicast: 0, fannedOut: 2, unmatched: 0 })
})

t.test('an initiation for nobody is dropped', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openAll(t, app, [{ key: publicKey() }, { key: publicKey() }]) as [Tunnel, Tunnel]
  t.same(await send(a, [initiation(1, publicKey())], [a, b]), [[], []])
  t.same(drops(app), { 'no-responder': 1 })
  t.match(app.relayHub.stats().initiations, { unmatched: 1 })
})

t.test('a channel takes so many peers without a key, and others beyond them', async (t) => {
  const app = await startRelay(t, { maxKeylessPeers: 2 })
  await openAll(t, app, [{ id: 'a' }, { id: 'b' }])
  t.match(await askForTunnel(t, app, { id: 'c' }), { statusCode: 503, code: 'FST_RELAY_KEYLESS_FULL' })
  await openTunnel(t, app, { key: publicKey() })
  await openTunnel(t, app, { id: 'a' })
  await openTunnel(t, app, { path: '/relay/away' })
})

t.test('of many initiations to one peer five get there at once, and other peers are not touched by that', async (t) => {
  const app = await startRelay(t)
  const [keyB, keyC] = [publicKey(), publicKey()]
  const [a, b, c] = await openAll(t, app, [{}, { key: keyB }, { key: keyC }]) as [Tunnel, Tunnel, Tunnel]
  const [, toB, toC] = await send(a, [...Array.from({ length: 20 }, (_, index) => initiation(index, keyB)), initiation(99, keyC)], [a, b, c])
  // One more for each second that the test takes.
  t.ok(toB!.length >= 5 && toB!.length < 20)
  t.equal(toC!.length, 1)
  t.equal(drops(app)['initiation-rate'], 20 - toB!.length)
})

t.test('ten thousand initiations neither flood nor stall', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(b, c, 21, 31, a)
  const count = 10_000
  a.send(...Array.from({ length: count }, (_, index) => initiation(1000 + index)))
  for (let i = 0; i < 20; i++) {
    const [forB, forC] = [transportData(21), transportData(31)]
    b.send(forC)
    c.send(forB)
    await settle(b, c)
    t.ok(b.take().some((datagram) => datagram.equals(forB)))
    t.ok(c.take().some((datagram) => datagram.equals(forC)))
  }
  await settle(a, b, c)
  const stats = app.relayHub.stats()
  const delivered = [b, c].flatMap(({ datagrams }) => datagrams.all).filter((datagram) => datagram[0] === 1).length - 1
  t.ok(delivered < 100, `${delivered} were delivered`)
  // Without the handshake of b with c.
  const passed = stats.initiations.fannedOut - 1
  const infos = app.relayHub.peers()
  t.equal(infos.find(({ id }) => id === 'a')!.datagramsIn, count)
  t.ok(passed >= 250 && passed < 1000, `${passed} were looked at`)
  // Those that pass the rate of the sender are for two peers each.
  t.equal((count - passed) + passed * 2, stats.drops['initiation-rate'] + delivered)
})

t.test('the tests of mac1 have a budget for each sender', async (t) => {
  const app = await startRelay(t)
  const keys = Array.from({ length: 20 }, () => publicKey())
  const [a, b, ...others] = await openAll(t, app, keys.map((key) => ({ key }))) as [Tunnel, Tunnel, ...Tunnel[]]
  // 250 pass the rate of the sender; 19 keys to test for each make 4,750 tests.
  a.send(...Array.from({ length: 250 }, (_, index) => initiation(index, publicKey())))
  await settle(a)
  const { 'no-responder': tested, 'mac1-budget': untested } = app.relayHub.stats().drops
  t.equal(tested + untested, 250)
  t.ok(untested > 0, `${untested} were not tested`)
  const message = initiation(1, keys[2])
  b.send(message)
  await settle(b, others[0]!)
  t.same(others[0]!.take(), [message], 'another sender has its own budget')
})

t.test('a partner is found first, whatever the number of keys', async (t) => {
  const { join, counters } = unitChannel({ mac1Tests: 9 + 3 + 1 })
  const keys = Array.from({ length: 10 }, () => publicKey())
  const [a, ...others] = keys.map((key) => join(wg, { id: key.toString('hex'), key }))
  await a!.receive(initiation(1, keys.at(-1)))
  t.equal(counters.initiations.unicast, 1, 'nine tests')
  await others.at(-1)!.receive(response(2, 1))
  t.equal(counters.drops['no-pending'], 0)
  for (const index of [3, 4, 5]) await a!.receive(initiation(index, keys.at(-1)))
  t.equal(counters.initiations.unicast, 4, 'one test each')
  await a!.receive(initiation(6, keys.at(-2)))
  t.equal(counters.drops['mac1-budget'], 1)
})

t.test('each test of mac1 counts for the hub, those of partners as well', async (t) => {
  const { join, counters } = unitChannel({ mac1Tests: 5 + 2 })
  const keys = Array.from({ length: 6 }, () => publicKey())
  const [a, ...others] = keys.map((key) => join(wg, { id: key.toString('hex'), key }))
  await a!.receive(initiation(0, keys[5]))
  await others.at(-1)!.receive(response(1, 0))
  for (let index = 2; index < 5; index++) await a!.receive(initiation(index, keys[5]))
  t.equal(counters.initiations.unicast, 3)
  t.equal(counters.drops['mac1-budget'], 1)
})

t.test('who comes back with the same id finds its rates as used as they were', async (t) => {
  const app = await startRelay(t)
  const b = await openTunnel(t, app, { id: 'b' })
  for (let round = 0; round < 4; round++) {
    const a = await openTunnel(t, app, { id: 'a' })
    const gone = detached(app, 'a')
    for (let index = 0; index < 5; index++) a.send(initiation(round * 5 + index))
    a.socket.end()
    await gone
  }
  await settle(b)
  const { drops, datagramsIn, datagramsOut } = app.relayHub.stats()
  t.equal(datagramsIn, 20)
  t.ok(drops['initiation-rate'] >= 10, 'five at once, and those that time has brought')
  t.equal(datagramsOut, datagramsIn - drops['initiation-rate'])
})

// Responses and sessions.

t.test('after a handshake data goes both ways, to that one peer', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 0x0a000001, 0xfb000001, c)
  const [toB, toA] = [transportData(0xfb000001), transportData(0x0a000001)]
  t.same(await send(a, [toB], [a, b, c]), [[], [toB], []])
  t.same(await send(b, [toA], [a, b, c]), [[toA], [], []])
})

t.test('pairs of one channel have their sessions side by side', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 1, 2, c)
  await shakeHands(b, c, 3, 4, a)
  await shakeHands(c, a, 5, 6, b)
  // Both sides may initiate at once; old and new sessions live together.
  await shakeHands(b, a, 7, 8, c)
  const sent: Array<[Tunnel, number, number]> = [[a, 2, 1], [b, 1, 0], [b, 4, 2], [c, 3, 1], [c, 6, 0], [a, 5, 2], [b, 8, 0], [a, 7, 1]]
  for (const [from, index, receiver] of sent) {
    const message = transportData(index)
    t.same(await send(from, [message], [a, b, c]), [0, 1, 2].map((each) => each === receiver ? [message] : []), `index ${index}`)
  }
})

t.test('the first wrong answer to a fanned-out initiation does not spoil the right one', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  const wrong = response(66, 1)
  const right = response(2, 1)
  await send(a, [initiation(1)], [b, c])
  t.same(await send(c, [wrong], [a, b, c]), [[wrong], [], []])
  t.same(await send(b, [right], [a, b, c]), [[right], [], []])
  const [toB, toA] = [transportData(2), transportData(1)]
  t.same(await send(a, [toB], [a, b, c]), [[], [toB], []])
  t.same(await send(b, [toA], [a, b, c]), [[toA], [], []])
})

t.test('a response is let through once, and only by one who was asked', async (t) => {
  const app = await startRelay(t)
  const keyB = publicKey()
  const [a, b, c] = await openAll(t, app, [{ id: 'a' }, { id: 'b', key: keyB }, { id: 'c' }]) as [Tunnel, Tunnel, Tunnel]
  await send(a, [initiation(1, keyB)], [b, c])
  t.same(await send(c, [response(3, 1)], [a, b, c]), [[], [], []], 'one who was not asked')
  t.same(await send(b, [response(2, 9)], [a, b, c]), [[], [], []], 'an index nobody has sent')
  const right = response(2, 1)
  t.same(await send(b, [right], [a, b, c]), [[right], [], []])
  t.same(await send(b, [right], [a, b, c]), [[], [], []], 'once more')
  t.same(drops(app), { 'no-pending': 3 })
})

t.test('indices that somebody else has shaken hands for lead nowhere', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 1, 2, c)
  t.same(await send(c, [transportData(1), transportData(2), cookieReply(2), response(1, 2)], [a, b, c]), [[], [], []])
  t.same(await send(a, [transportData(1)], [a, b, c]), [[], [], []], 'and neither does one\'s own')
  t.same(drops(app), { 'no-session': 3, 'no-pending': 2 })
})

t.test('nobody can take over an index by initiating with it', async (t) => {
  const app = await startRelay(t)
  const keyB = publicKey()
  const [a, b, c] = await openAll(t, app, [{ id: 'a' }, { id: 'b', key: keyB }, { id: 'c' }]) as [Tunnel, Tunnel, Tunnel]
  await send(a, [initiation(1, keyB)], [a, b, c])
  t.same(await send(c, [initiation(1, keyB)], [a, b, c]), [[], [], []], 'while an answer is awaited')
  const answer = response(2, 1)
  t.same(await send(b, [answer], [a, b, c]), [[answer], [], []])
  t.same(await send(c, [initiation(1, keyB)], [a, b, c]), [[], [], []], 'while a session lives')
  const toA = transportData(1)
  t.same(await send(b, [toA], [a, b, c]), [[toA], [], []])
  t.same(drops(app), { 'index-collision': 2 })
})

t.test('nobody can take over an index by answering with it', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 1, 2, c)
  await send(a, [initiation(3)], [a, b, c])
  t.same(await send(c, [response(2, 3)], [a, b, c]), [[], [], []], 'a session of another peer')
  const toB = transportData(2)
  t.same(await send(a, [toB], [a, b, c]), [[], [toB], []])
  // The index of an initiation that a has to answer is taken, too.
  await send(b, [initiation(5)], [a, b, c])
  t.same(await send(c, [response(5, 3)], [a, b, c]), [[], [], []], 'an initiation of another peer')
  const answer = response(6, 5)
  t.same(await send(a, [answer], [a, b, c]), [[], [answer], []])
  const late = response(4, 3)
  t.same(await send(c, [late], [a, b, c]), [[late], [], []], 'a free index is still welcome')
  t.same(drops(app), { 'index-collision': 2 })
})

t.test('a peer may use its own index again', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 1, 2, c)
  const again = initiation(1)
  t.same(await send(a, [again], [b, c]), [[again], [again]])
  const answer = response(2, 1)
  t.same(await send(b, [answer], [a]), [[answer]])
  t.same(drops(app), {})
})

t.test('a cookie reply reaches the one who waits for an answer, and leaves the answer possible', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await send(a, [initiation(1)], [a, b, c])
  for (let i = 0; i < 2; i++) {
    const cookie = cookieReply(1)
    t.same(await send(b, [cookie], [a, b, c]), [[cookie], [], []])
  }
  const answer = response(2, 1)
  t.same(await send(b, [answer], [a, b, c]), [[answer], [], []])
  // Of a response that came under load: the initiator may answer it with a cookie, too.
  const [toB, toA] = [cookieReply(2), cookieReply(1)]
  t.same(await send(a, [toB], [a, b, c]), [[], [toB], []])
  t.same(await send(b, [toA], [a, b, c]), [[toA], [], []])
  t.same(await send(b, [cookieReply(9)], [a, b, c]), [[], [], []])
  t.same(drops(app), { 'no-pending': 1 })
})

t.test('between exactly two, data without a session and anything else goes to the other', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openAll(t, app, [{}, {}]) as [Tunnel, Tunnel]
  const warp = transportData(1)
  warp[1] = 7
  const datagrams = [transportData(77), Buffer.from('junk'), warp, Buffer.concat([initiation(1), Buffer.from([0])]), Buffer.from([0])]
  t.same(await send(a, datagrams, [a, b]), [[], datagrams])
  t.same(await send(b, [response(1, 2), cookieReply(5)], [a, b]), [[], []], 'but no answer to what was not asked')
  t.same(drops(app), { 'no-pending': 2 })
})

t.test('among three, data without a session and anything else is dropped', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  t.same(await send(a, [transportData(77), Buffer.from('junk'), Buffer.from([4, 7, 0, 0, ...randomBytes(60)])], [a, b, c]), [[], [], []])
  t.same(drops(app), { 'no-session': 1, unroutable: 2 })
  await gone(app, c)
  const message = transportData(77)
  t.same(await send(a, [message], [a, b]), [[], [message]], 'and when the third has left, it goes to the other')
})

// Identities and their tunnels.

t.test('a peer with an id that comes back finds its sessions', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 1, 2, c)
  await gone(app, b)
  t.same(await send(a, [transportData(2), initiation(3)], [a, c]).then(([toA]) => toA), [])
  t.equal(drops(app)['peer-away'], 1)
  const again = await openTunnel(t, app, { id: 'b' })
  const [toB, toA] = [transportData(2), transportData(1)]
  t.same(await send(a, [toB], [a, again]), [[], [toB]])
  t.same(await send(again, [toA], [a, c]), [[toA], []])
})

t.test('a peer that is replaced while it is connected hands its sessions on', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await shakeHands(a, b, 1, 2, c)
  const again = await openTunnel(t, app, { id: 'b' })
  await b.closed
  t.same(b.closing, { code: 3, text: 'another tunnel has the same identity now' })
  const [toB, toA] = [transportData(2), transportData(1)]
  t.same(await send(a, [toB], [a, again, c]), [[], [toB], []])
  t.same(await send(again, [toA], [a, again, c]), [[toA], [], []])
  t.equal(app.relayHub.stats().detached['replaced'], 1)
  t.equal(app.relayHub.stats().peers, 3)
})

t.test('a random id dies with its tunnel, and what led to it', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openAll(t, app, [{ id: 'a' }, {}, { id: 'c' }]) as [Tunnel, Tunnel]
  await shakeHands(a, b, 1, 2)
  await gone(app, b)
  const newB = await openTunnel(t, app)
  t.same(await send(a, [transportData(2)], [newB]), [[]])
  t.same(await send(newB, [transportData(1)], [a]), [[]])
  t.same(drops(app), { 'no-session': 2 })
})

t.test('an id without sessions is forgotten with its tunnel', async (t) => {
  const app = await startRelay(t)
  const [a, b, c] = await openThree(t, app)
  await gone(app, c)
  const message = transportData(99)
  t.same(await send(a, [message], [b]), [[message]], 'the channel has two identities again')
})

t.test('an empty channel is forgotten', async (t) => {
  const app = await startRelay(t, { writeTimeout: 50 })
  const [a, b, c] = await openThree(t, app)
  for (const tunnel of [a, b, c]) await gone(app, tunnel)
  t.same(app.relayHub.channels(), [])
})

t.test('a public key is an id', async (t) => {
  const app = await startRelay(t)
  const [keyA, keyB] = [publicKey(), publicKey()]
  const [a, b, c] = await openAll(t, app, [{ key: keyA }, { key: keyB }, { key: publicKey() }]) as [Tunnel, Tunnel, Tunnel]
  await send(a, [initiation(1, keyB)], [b])
  await send(b, [response(2, 1)], [a])
  await gone(app, b)
  const again = await openTunnel(t, app, { key: keyB })
  t.same(app.relayHub.peers().map(({ id }) => id).includes(keyB.toString('base64')), true)
  const message = transportData(2)
  t.same(await send(a, [message], [again, c]), [[message], []])
})

t.test('the same key under another id replaces the older tunnel, and has none of its sessions', async (t) => {
  const app = await startRelay(t)
  const keyB = publicKey()
  const [a, b, c] = await openAll(t, app, [{ id: 'a' }, { id: 'b', key: keyB }, { id: 'c' }]) as [Tunnel, Tunnel, Tunnel]
  await send(a, [initiation(1, keyB)], [b])
  await send(b, [response(2, 1)], [a])
  const renamed = await openTunnel(t, app, { id: 'other', key: keyB })
  await b.closed
  t.match(b.closing, { code: 3 })
  t.same(app.relayHub.peers().map(({ id }) => id).sort(), ['a', 'c', 'other'])
  t.same(await send(a, [transportData(2)], [renamed, c]), [[], []])
  t.same(await send(renamed, [transportData(1)], [a, c]), [[], []])
  t.same(drops(app), { 'no-session': 2 })
  const [second, answer, data] = [initiation(3, keyB), response(4, 3), transportData(4)]
  t.same(await send(a, [second], [renamed, c]), [[second], []])
  t.same((await send(renamed, [answer], [a, c])).map((datagrams) => datagrams.at(-1)), [answer, undefined])
  t.same(await send(a, [data], [renamed, c]), [[data], []])
})

t.test('the same id with another key is somebody new: no old session leads to it or from it', async (t) => {
  const app = await startRelay(t)
  const [keyB, newKey] = [publicKey(), publicKey()]
  const [a, b, c] = await openAll(t, app, [{ id: 'a' }, { id: 'b', key: keyB }, { id: 'c' }]) as [Tunnel, Tunnel, Tunnel]
  await send(a, [initiation(1, keyB)], [b])
  await send(b, [response(2, 1)], [a])
  const newB = await openTunnel(t, app, { id: 'b', key: newKey })
  await b.closed
  t.same(await send(newB, [transportData(1)], [a, c]), [[], []])
  t.same(await send(a, [transportData(2)], [newB, c]), [[], []])
  t.same(drops(app), { 'no-session': 2 })
  const forNew = initiation(3, newKey)
  t.same(await send(a, [forNew], [newB, c]), [[forNew], []])
  const keyless = await openTunnel(t, app, { id: 'b' })
  await newB.closed
  t.same(await send(keyless, [response(4, 3)], [a, c]), [[], []], 'nor does one that gives no key any more')
})

t.test('one that takes the id of one peer and the key of another replaces both, and has the sessions of neither', async (t) => {
  const app = await startRelay(t)
  const [keyB, keyC] = [publicKey(), publicKey()]
  const [a, b, c] = await openAll(t, app, [{ id: 'a' }, { id: 'b', key: keyB }, { id: 'c', key: keyC }, { id: 'd' }]) as [Tunnel, Tunnel, Tunnel]
  await send(a, [initiation(1, keyB), initiation(3, keyC)], [b, c])
  await send(b, [response(2, 1)], [a])
  await send(c, [response(4, 3)], [a])
  const both = await openTunnel(t, app, { id: 'c', key: keyB })
  await Promise.all([b.closed, c.closed])
  t.same(app.relayHub.peers().map(({ id }) => id), ['a', 'd', 'c'])
  t.same(await send(a, [transportData(4), transportData(2)], [both]), [[]])
  const message = initiation(5, keyB)
  t.same(await send(a, [message], [both]), [[message]])
})

t.test('only so many are remembered without a tunnel; the oldest is forgotten first', async (t) => {
  const app = await startRelay(t, { maxChannelPeers: 2 })
  const a = await openTunnel(t, app, { id: 'a' })
  for (const [id, index] of [['x', 10], ['y', 20], ['z', 30]] as const) {
    const tunnel = await openTunnel(t, app, { id })
    await shakeHands(a, tunnel, index, index + 1)
    await gone(app, tunnel)
  }
  t.same(await send(a, [transportData(11), transportData(21), transportData(31)], [a]), [[]])
  t.same(drops(app), { 'no-session': 1, 'peer-away': 2 })
})

t.test('two devices with one id replace each other five times, then the newcomer is refused and the older stays', async (t) => {
  const app = await startRelay(t)
  let current = await openTunnel(t, app, { id: 'shared' })
  for (let i = 0; i < 5; i++) {
    const next = await openTunnel(t, app, { id: 'shared' })
    await current.closed
    t.match(current.closing, { code: 3 })
    current = next
  }
  for (let i = 0; i < 3; i++) {
    const refused = await askForTunnel(t, app, { id: 'shared' })
    t.match(refused, { statusCode: 429, code: 'FST_RELAY_REPLACED_TOO_OFTEN', head: /retry-after: \d/i })
  }
  await current.roundTrip()
  t.equal(app.relayHub.stats().peers, 1)
  t.equal(app.relayHub.stats().refused['FST_RELAY_REPLACED_TOO_OFTEN'], 3)
})

t.test('another id each time does not help one whose key is shared, nor another key one whose id is', async (t) => {
  const app = await startRelay(t)
  const key = publicKey()
  for (let i = 0; i <= 5; i++) await openTunnel(t, app, { id: `device ${i}`, key })
  t.match(await askForTunnel(t, app, { id: 'device 6', key }), { statusCode: 429 })
  for (let i = 0; i <= 5; i++) await openTunnel(t, app, { id: 'shared', key: publicKey() })
  t.match(await askForTunnel(t, app, { id: 'shared', key: publicKey() }), { statusCode: 429 })
})

t.test('a channel takes so many peers; one that comes back needs no room', async (t) => {
  const app = await startRelay(t, { maxChannelPeers: 2 })
  await openAll(t, app, [{ id: 'a' }, { id: 'b' }])
  t.match(await askForTunnel(t, app, { id: 'c' }), { statusCode: 503, code: 'FST_RELAY_CHANNEL_FULL' })
  await openTunnel(t, app, { id: 'a' })
  await openTunnel(t, app, { id: 'c', path: '/relay/away' })
})

// How datagrams are written.

/** A channel of its own, with tunnels whose every write can be seen. */
function unitChannel ({ mac1Tests = 1000 } = {}) {
  const counters = createCounters()
  const channel = new PacketChannel(
    { options: readHubOptions({}), clock: new Clock(1000), counters, detached: () => {}, handshakesFail () {}, handshakesSucceed () {} }, { take: () => mac1Tests-- > 0 })
  function join (framing: Framing, { id, key }: { id?: string, key?: Buffer } = {}): FakeTunnel {
    const tunnel = new FakeTunnel({ highWaterMark: 65536 })
    channel.attach(admitted({ id, publicKey: key, framing }), tunnel.tunnel)
    return tunnel
  }
  return { channel, counters, join }
}

/** Sessions between all of these: number i sends to number j with the index 10 · i + j. */
async function connectAll (tunnels: Array<[FakeTunnel, Framing]>): Promise<void> {
  for (const [i, [from, framing]] of tunnels.entries()) {
    for (const [j, [to, toFraming]] of tunnels.entries()) {
      if (j <= i) continue
      await from.receive(frames(framing, [initiation(10 * j + i)]))
      await to.receive(frames(toFraming, [response(10 * i + j, 10 * j + i)]))
    }
  }
  for (const [tunnel] of tunnels) tunnel.writes.length = 0
}

t.test('datagrams of one chunk for one destination leave in one write, as the same memory', async (t) => {
  const { join } = unitChannel()
  const [a, b, c] = [join(wg), join(wg), join(wg)]
  await connectAll([[a, wg], [b, wg], [c, wg]])
  const datagrams = Array.from({ length: 20 }, () => transportData(1, 1000))
  const chunk = frames(wg, datagrams)
  await a.receive(chunk)
  t.equal(b.writes.length, 1)
  t.same(b.writes[0], chunk)
  t.equal(b.writes[0]!.buffer, chunk.buffer)
  t.equal(c.writes.length, 0)
})

t.test('datagrams of one chunk that alternate between destinations leave in one write for each', async (t) => {
  const { join } = unitChannel()
  const tunnels = [join(wg), join(wg), join(len16), join(wg)] as const
  await connectAll([[tunnels[0], wg], [tunnels[1], wg], [tunnels[2], len16], [tunnels[3], wg]])
  const datagrams = Array.from({ length: 30 }, (_, number) => transportData(1 + number % 3, 100 + number))
  const chunk = frames(wg, datagrams)
  const before = Buffer.from(chunk)
  await tunnels[0].receive(chunk)
  for (const [position, framing] of [[1, wg], [2, len16], [3, wg]] as const) {
    t.equal(tunnels[position].writes.length, 1)
    t.same(decode(framing, tunnels[position].writes).sink.datagrams, datagrams.filter((_, number) => 1 + number % 3 === position))
  }
  t.same(chunk, before, 'the received memory stays as it was')
})

t.test('from len16 to wg and back datagrams arrive as they were', async (t) => {
  const { join } = unitChannel()
  const [a, b] = [join(wg), join(len16)]
  await connectAll([[a, wg], [b, len16]])
  const datagrams = (index: number): Buffer[] =>
    [transportData(index, 1452), Buffer.from('junk'), transportData(index, 32), Buffer.from([4, 9, 9, 9, ...randomBytes(40)])]
  const [toB, toA] = [datagrams(1), datagrams(10)]
  const chunk = frames(wg, toB)
  await a.receive(chunk)
  await b.receive(frames(len16, toA))
  t.same(decode(len16, b.writes).sink.datagrams, toB)
  t.same(decode(wg, a.writes).sink.datagrams, toA)
  t.same(Buffer.concat(b.writes), frames(len16, toB))
  t.same(Buffer.concat(a.writes), frames(wg, toA))
})

t.test('one datagram for several peers of different framings is right for each, and the received memory untouched', async (t) => {
  const { join } = unitChannel()
  const [a, b, c, d] = [join(wg), join(wg), join(len16), join(wg)]
  const messages = [initiation(1), initiation(2)]
  const chunk = frames(wg, messages)
  const before = Buffer.from(chunk)
  await a.receive(chunk)
  t.same(b.writes, [chunk])
  t.same(c.writes, [frames(len16, messages)])
  t.same(d.writes, [chunk])
  t.same(chunk, before)
  t.equal(a.writes.length, 0)
})

t.test('a datagram that was cut arrives whole', async (t) => {
  const { join } = unitChannel()
  const [a, b] = [join(wg), join(wg)]
  const datagrams = [transportData(5, 500), transportData(5, 600), transportData(5, 700)]
  const chunk = frames(wg, datagrams)
  for (let position = 0; position < chunk.length; position += 333) await a.receive(chunk.subarray(position, position + 333))
  t.same(decode(wg, b.writes).sink.datagrams, datagrams)
})

t.test('a peer that has left is not held on to by those who came after it', async (t) => {
  const { channel, join } = unitChannel()
  let older = join(wg)
  for (let i = 0; i < 20; i++) {
    const newer = join(wg)
    await older.receive(initiation(2 * i))
    await newer.receive(response(2 * i + 1, 2 * i))
    older.destroy()
    await older.receive(Buffer.alloc(0))
    older = newer
  }
  t.equal(channel.peers.length, 1)
  const [last] = channel.peers
  t.ok(last!.identity!.partners.every(({ partners, sessions }) => partners.length === 0 && sessions.size === 0))
})
