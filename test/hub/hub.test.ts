import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { CLOSING, DRAIN } from '../../lib/framing/wg.ts'
import type { Hub } from '../../lib/hub/hub.ts'
import type { DetachInfo, PeerInfo, RefusalInfo } from '../../lib/index.ts'
import { relayServerOf } from '../../lib/plugin.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { askForUpgrade, openBare, startApp, testRefusal } from '../helpers/relay-app.ts'
import { detached, startRelay } from '../helpers/relay.ts'
import { SeededRandom } from '../helpers/random.ts'
import { askForTunnel, openTunnel, settle, until, type Tunnel } from '../helpers/tunnel.ts'
import { initiation, publicKey, response, transportData } from '../helpers/wireguard-messages.ts'

const hubOf = (app: FastifyInstance): Hub => relayServerOf(app)!.hub

/** Notes the events of a hub. */
function watch (app: FastifyInstance) {
  const attached: PeerInfo[] = []
  const left: Array<[PeerInfo, DetachInfo]> = []
  const refused: RefusalInfo[] = []
  app.relayHub.on('attach', (peer) => attached.push(peer))
  app.relayHub.on('detach', (peer, info) => left.push([peer, info]))
  app.relayHub.on('refuse', (refusal) => refused.push(refusal))
  return { attached, left, refused }
}

async function openTwo (t: Test, app: FastifyInstance): Promise<[Tunnel, Tunnel]> {
  return [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'b' })]
}

t.test('a peer is announced with all that is known of it', async (t) => {
  const app = await startRelay(t)
  const { attached } = watch(app)
  const key = publicKey()
  await openTunnel(t, app, { id: 'a', key, context: 'for the app' })
  const expected = {
    id: 'a',
    channel: { scope: '/relay/:network', name: 'home', kind: 'packet' },
    address: '127.0.0.1',
    protocol: 'spanza',
    framing: 'wg',
    publicKey: key.toString('base64'),
    context: 'for the app',
    datagramsIn: 0,
    datagramsOut: 0,
    bytesIn: 0,
    bytesOut: 0,
    drops: 0
  }
  t.match(attached, [expected])
  t.match(app.relayHub.peers(), [expected])
  t.ok(Math.abs(attached[0]!.attachedAt.getTime() - Date.now()) < 60_000)
  await openTunnel(t, app, { protocol: 'UoTLV/1' })
  t.match(attached[1], { id: /^[0-9a-f-]{36}$/, protocol: 'UoTLV/1', framing: 'len16', publicKey: undefined })
})

t.test('a peer that leaves is announced with its counters and the reason', async (t) => {
  const app = await startRelay(t)
  const { left } = watch(app)
  const [a, b] = await openTwo(t, app)
  a.send(transportData(1, 100), transportData(2, 100))
  await settle(a, b)
  const leaving = detached(app, 'a')
  a.socket.end()
  await leaving
  const [peer, info] = left[0]!
  t.match(peer, { id: 'a', datagramsIn: 2, datagramsOut: 0, bytesIn: 200 + 24, bytesOut: 24, drops: 0 })
  t.match(info, { reason: 'ended', text: 'the client ended the tunnel' })
  t.ok(info.duration >= 0)
  t.same(app.relayHub.peers().map(({ id }) => id), ['b'])
})

t.test('a refused handshake is announced and counted by its code', async (t) => {
  const app = await startRelay(t, { maxPeers: 1 })
  const { refused } = watch(app)
  await openTunnel(t, app, { id: 'a' })
  t.match(await askForTunnel(t, app, { id: 'b', path: '/relay/home?token=secret' }), { statusCode: 503, code: 'FST_RELAY_HUB_FULL' })
  await until(() => refused.length === 1)
  t.same(refused, [{
    statusCode: 503, code: 'FST_RELAY_HUB_FULL', message: 'The relay is full (maxPeers: 1)', address: '127.0.0.1', path: '/relay/:network'
  }])
  t.same(app.relayHub.stats().refused, { FST_RELAY_HUB_FULL: 1 })
})

t.test('a full hub takes back one whose old tunnel it still has', async (t) => {
  const app = await startRelay(t, { maxPeers: 2 })
  await openTwo(t, app)
  for (const path of ['/relay/home', '/relay/away', '/other/home']) {
    t.match(await askForTunnel(t, app, { id: 'c', path }), { statusCode: 503, code: 'FST_RELAY_HUB_FULL' })
  }
  t.match(await askForTunnel(t, app, { id: 'a', path: '/relay/away' }), { statusCode: 503 }, 'in another channel it is another one')
  await openTunnel(t, app, { id: 'a' })
  t.equal(app.relayHub.stats().peers, 2)
  const raw = await startRelay(t, { maxPeers: 1 })
  await openTunnel(t, raw, { id: 'a', framing: 'raw' })
  t.match(await askForTunnel(t, raw, { id: 'b', framing: 'raw' }), { statusCode: 503 })
  await openTunnel(t, raw, { id: 'a', framing: 'raw' })
})

t.test('the peers of one client address are limited, over all channels', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:channel', {
    identify: ({ headers }) => ({ id: headers['x-id'] as string })
  }), { server: { trustProxy: '127.0.0.1' }, relay: { maxClientPeers: 2 } })
  const from = (address: string, id: string) => ({ headers: { 'X-Forwarded-For': address, 'X-Id': id, 'Spanza-Framing': 'wg' } })
  const full = { statusCode: 429, code: 'FST_RELAY_CLIENT_FULL', headers: { 'retry-after': /^\d+$/ } } as const
  const first = await openBare(t, app, '/relay/1', from('2001:db8:1:1::1', 'a'))
  await openBare(t, app, '/relay/2', from('2001:db8:1:1::2', 'b'))
  await testRefusal(t, app, upgradeText('/relay/3', from('2001:db8:1:1:ffff::', 'c')), { ...full, message: 'Too many peers from 2001:db8:1:1::/64 (maxClientPeers: 2)' })
  await openBare(t, app, '/relay/3', from('2001:db8:1:2::1', 'c'))
  await openBare(t, app, '/relay/2', from('2001:db8:1:1::3', 'b'))
  t.pass('who comes back while the old tunnel is still there needs no room')
  await openBare(t, app, '/relay/4', from('2001:db8:1:2::1', 'd'))
  await testRefusal(t, app, upgradeText('/relay/2', from('2001:db8:1:2::1', 'b')), full)
  t.pass('but in the place of a tunnel of another client it does')

  const left = detached(app, 'a')
  first.socket.destroy()
  await left
  await openBare(t, app, '/relay/3', from('2001:db8:1:1::1', 'e'))
  await testRefusal(t, app, upgradeText('/relay/3', from('2001:db8:1:1::1', 'f')), full)
})

t.test('the rate of handshakes of one channel', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:channel'), { relay: { channelHandshakesPerSecond: 1 } })
  const wg = { headers: { 'Spanza-Framing': 'wg' } }
  // As many at once as can be, for those that come back with time must not be enough for all.
  const answers = await Promise.all(Array.from({ length: 16 }, async () => await askForUpgrade(t, app, '/relay/busy', wg)))
  const limited = answers.filter(({ statusCode }) => statusCode === 503)
  t.ok(limited.length > 0 && limited.length <= 11, 'five in a burst')
  for (const { headers, body } of limited) {
    t.match(headers, { connection: 'close', 'retry-after': /^\d+$/ })
    t.match(JSON.parse(body), { code: 'FST_RELAY_CHANNEL_RATE', message: /channelHandshakesPerSecond: 1/ })
  }
  await openBare(t, app, '/relay/other', wg)
  await openBare(t, app, '/relay/busy')
  t.pass('the stream channel of the same name is another one')
})

t.test('a channel that everybody leaves keeps its rate', async (t) => {
  // So short a deadline makes the hub look at its channels every few milliseconds.
  const app = await startApp(t, (app) => app.relay('/relay/:channel'), { relay: { channelHandshakesPerSecond: 1, writeTimeout: 10 } })
  let statusCode: number
  for (let i = 0; i < 20; i++) {
    const gone = new Promise((resolve) => app.relayHub.once('detach', resolve))
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay/a'))
    statusCode = (await client.head()).statusCode
    if (statusCode !== 101) break
    client.socket.destroy()
    await gone
    // Until the hub has looked at its channels again.
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  t.equal(statusCode!, 503)
})

t.test('the counters add up over any traffic', async (t) => {
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  const app = await startRelay(t, { maxPacketSize: 1500 })
  const keys = ['a', 'b', 'c', 'd'].map(() => publicKey())
  const tunnels: Tunnel[] = []
  for (const key of keys) tunnels.push(await openTunnel(t, app, { key }))
  let sent = 0
  for (let round = 0; round < 100; round++) {
    const tunnel = random.pick(tunnels)
    const datagrams = Array.from({ length: random.between(1, 20) }, () => random.pick([
      () => initiation(random.below(4), random.pick(keys)),
      () => response(random.below(4), random.below(4)),
      () => transportData(random.below(4), random.between(32, 1600)),
      () => random.bytes(random.between(1, 100))
    ])())
    sent += datagrams.length
    tunnel.send(...datagrams)
    if (random.below(5) === 0) await settle(...tunnels)
  }
  await settle(...tunnels)
  const stats = app.relayHub.stats()
  const received = tunnels.reduce((sum, { datagrams }) => sum + datagrams.all.length, 0)
  const dropped = Object.values(stats.drops).reduce((sum, count) => sum + count)
  t.equal(stats.datagramsIn, sent)
  t.equal(stats.datagramsOut, received)
  t.equal(stats.datagramsIn, stats.datagramsOut + dropped, `seed ${random.seed}`)
  t.equal(app.relayHub.peers().reduce((sum, { drops }) => sum + drops, 0), dropped)
  t.equal(stats.bytesOut, tunnels.reduce((sum, { bytes }) => sum + bytes.length, 0))

  for (const tunnel of tunnels) tunnel.socket.destroy()
  await until(() => app.relayHub.stats().peers === 0)
  const { datagramsIn, datagramsOut, bytesOut, attached } = app.relayHub.stats()
  t.same([datagramsIn, datagramsOut, bytesOut, attached], [stats.datagramsIn, stats.datagramsOut, stats.bytesOut, 4], 'and stay when all have left')
})

t.test('each peer is shown with what it has sent to whom', async (t) => {
  const app = await startRelay(t)
  const keys = ['a', 'b', 'c'].map(() => publicKey())
  const [a, b, c] = await Promise.all(['a', 'b', 'c'].map((id, i) => openTunnel(t, app, { id, key: keys[i]! }))) as [Tunnel, Tunnel, Tunnel]
  for (const [other, index, key] of [[b, 1, keys[1]!], [c, 2, keys[2]!]] as const) {
    a.send(initiation(index, key))
    await other.datagrams.next()
    other.send(response(index + 10, index))
    await a.datagrams.next()
  }
  a.send(transportData(11, 100), transportData(11, 200), transportData(12, 1000))
  b.send(transportData(1, 50))
  await settle(a, b, c)
  t.same(Object.fromEntries(app.relayHub.peers().map(({ id, sentTo }) => [id, sentTo])), {
    a: [{ id: 'b', bytes: 300 }, { id: 'c', bytes: 1000 }],
    b: [{ id: 'a', bytes: 50 }],
    c: [{ id: 'a', bytes: 0 }]
  })
})

t.test('a peer that leaves is told with what it has sent to whom, whether its id was given or not', async (t) => {
  const app = await startRelay(t)
  const { left } = watch(app)
  const [a, b] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app)]
  a.send(initiation(1))
  await b.datagrams.next()
  b.send(response(2, 1))
  await a.datagrams.next()
  a.send(transportData(2, 100))
  b.send(transportData(1, 64))
  await settle(a, b)
  const id = app.relayHub.peers().find((peer) => peer.id !== 'a')!.id
  b.socket.end()
  await until(() => left.length === 1)
  t.same(left[0]![0].sentTo, [{ id: 'a', bytes: 64 }])
  t.same(app.relayHub.peers()[0]!.sentTo, [{ id, bytes: 100 }])
  a.socket.end()
  await until(() => left.length === 2)
  t.match(left[1]![0], { id: 'a' })
})

t.test('the counters that are given out are a copy', async (t) => {
  const app = await startRelay(t)
  const stats = app.relayHub.stats()
  stats.drops['no-session'] = 99
  stats.detached['idle'] = 99
  t.equal(app.relayHub.stats().drops['no-session'], 0)
  t.same(app.relayHub.stats().detached, {})
})

t.test('a peer is disconnected, told so, and named by the selector alone', async (t) => {
  const app = await startRelay(t)
  const { left } = watch(app)
  const home = await openTunnel(t, app, { id: 'a' })
  const otherScope = await openTunnel(t, app, { id: 'a', path: '/other/home' })
  const raw = await openTunnel(t, app, { id: 'a', framing: 'raw' })
  const away = await openTunnel(t, app, { id: 'a', path: '/relay/away' })
  const b = await openTunnel(t, app, { id: 'b' })
  const { relayHub } = app
  t.equal(relayHub.disconnect({ channel: 'home', id: 'nobody' }), 0)
  t.equal(relayHub.disconnect({ channel: 'nowhere', id: 'a' }), 0)
  t.equal(relayHub.disconnect({ channel: 'home', id: 'a', scope: '/relay/:network', kind: 'packet' }, 'your key was revoked'), 1)
  await home.closed
  t.same(home.closing, { code: 6, text: 'your key was revoked' })
  t.match(left[0]![1], { reason: 'disconnected', text: 'your key was revoked' })
  t.equal(relayHub.disconnect({ channel: 'home', id: 'a' }), 2)
  raw.ended.then(() => raw.socket.end())
  await Promise.all([otherScope.closed, raw.closed])
  t.same(otherScope.closing, { code: 6, text: 'disconnected by the operator' })
  t.same(relayHub.peers().map(({ channel, id }) => [channel.name, id]).sort(), [['away', 'a'], ['home', 'b']])
  await Promise.all([away.roundTrip(), b.roundTrip()])
})

t.test('a peer that is disconnected by a listener of its own attach event is gone', async (t) => {
  const app = await startRelay(t)
  app.relayHub.on('attach', ({ channel, id }) => app.relayHub.disconnect({ channel: channel.name, id }))
  const tunnel = await openTunnel(t, app)
  await tunnel.closed
  t.match(tunnel.closing, { code: 6 })
  t.match(app.relayHub.stats(), { peers: 0, attached: 1, detached: { disconnected: 1 } })
})

t.test('a server that closes asks its peers to come back, says why, and ends', async (t) => {
  const app = await startRelay(t)
  const tunnels = [await openTunnel(t, app), await openTunnel(t, app), await openTunnel(t, app, { framing: 'len16' })]
  const { left } = watch(app)
  await app.close()
  await Promise.all(tunnels.map(({ ended }) => ended))
  for (const { controls, closing } of tunnels.slice(0, 2)) {
    t.same(controls.all.map(({ type }) => type), [DRAIN, CLOSING])
    t.ok(controls.all[0]!.payload.readUInt32BE() < 60_000)
    t.same(closing, { code: 7, text: 'the relay is shutting down' })
  }
  t.equal(tunnels[2]!.bytes.length, 0)
  t.same(left.map(([, { reason }]) => reason), ['shutdown', 'shutdown', 'shutdown'])
  t.match(app.relayHub.stats(), { peers: 0, channels: 0, detached: { shutdown: 3 } })
  t.equal(app.relayHub.isClosing, true)
})

t.test('a server closes though peers never read nor leave', async (t) => {
  const app = await startRelay(t, { closeGrace: 50 })
  const [a, mute] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'mute', reads: false })]
  const raw = await openTunnel(t, app, { framing: 'raw', reads: false })
  while (app.relayHub.stats().drops['queue-full'] === 0) {
    a.send(...Array.from({ length: 40 }, () => transportData(1, 1400)))
    await a.roundTrip()
  }
  await app.close()
  t.same(app.relayHub.peers(), [])
  for (const tunnel of [mute, raw]) tunnel.read()
  await Promise.all([a.closed, mute.closed])
})

t.test('a tunnel that lingers is not cut off because others are closed', async (t) => {
  const app = await startRelay(t)
  const sockets: Socket[] = []
  app.server.on('connection', (socket) => sockets.push(socket))
  for (let i = 0; i < 2; i++) await openTunnel(t, app, { path: '/relay/pair', framing: 'raw' })
  const waiting = await openTunnel(t, app, { path: '/relay/waiting', framing: 'raw' })
  const [first, second, lingering] = sockets as [Socket, Socket, Socket]
  const pairClosed = Promise.all([once(first, 'close'), once(second, 'close')])
  const closed = app.close()
  await pairClosed
  await turn()
  t.notOk(lingering.destroyed)
  waiting.socket.end()
  await closed
})

t.test('no tunnel outlives the grace', async (t) => {
  const app = await startRelay(t, { closeGrace: 20 })
  // Neither reads, and so neither ends its side.
  for (const framing of ['wg', 'raw'] as const) await openTunnel(t, app, { framing, reads: false })
  await hubOf(app).close()
  const connections = await new Promise((resolve) => app.server.getConnections((_error, count) => resolve(count)))
  t.equal(connections, 0)
})

t.test('a server that has no tunnels closes, also twice', async (t) => {
  const app = await startRelay(t)
  await Promise.all([app.close(), hubOf(app).close()])
  await hubOf(app).close()
  t.same(app.relayHub.channels(), [])
})

for (const listener of ['a listener', 'an async listener']) {
  t.test(`${listener} that throws is logged and disturbs nobody`, async (t) => {
    const lines: string[] = []
    const stream = { write: (line: string) => { lines.push(line) } }
    const app = await startApp(t, (app) => {
      app.relay('/relay/:network', { identify: () => ({ id: 'the same' }) })
    }, { server: { logger: { level: 'error', stream } } })
    for (const name of ['attach', 'detach'] as const) {
      const fail = (): never => { throw new Error(`thrown on ${name}`) }
      app.relayHub.on(name, listener === 'a listener' ? fail : async () => fail())
    }
    await openTunnel(t, app)
    await openTunnel(t, app)
    t.match(app.relayHub.peers(), [{ id: 'the same' }])
    await until(() => lines.length === 3)
    t.same(lines.map((line) => JSON.parse(line).err.message), ['thrown on attach', 'thrown on detach', 'thrown on attach'])
  })
}
