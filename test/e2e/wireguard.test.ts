import t from 'tap'
import { missingForNamespaces } from '../helpers/namespace.ts'
import { RelayNetwork, type Sidecar } from '../helpers/relay-network.ts'
import type { WireGuardHost } from '../helpers/wireguard-host.ts'

// Real WireGuard interfaces on hosts that cannot reach each other, each in a network namespace of its own; the relay,
// a Fastify app on the built package, in another; beside each interface the sidecar, as `spanza connect` starts it.

const MEBIBYTE = 1 << 20

t.setTimeout(240_000)

const missing = missingForNamespaces(['wireguard-go', 'wg', 'iperf3', 'ping', 'openssl'])

t.test('WireGuard through the relay', { skip: missing ?? false }, async (t) => {
  t.setTimeout(240_000)
  const network = await RelayNetwork.create(t, ['a', 'b', 'c', 'd'])
  const [a, b, c, d] = network.hosts as [WireGuardHost, WireGuardHost, WireGuardHost, WireGuardHost]

  /** Everyone knows everyone, and nobody has a session any more. */
  const forgetSessions = () => Promise.all(network.hosts.map((host) => host.setPeers(network.hosts.filter((other) => other !== host))))
  const inOneChannel = ({ name }: WireGuardHost) => ({ id: name, channel: 'home' })
  const withKeys = ({ publicKey }: WireGuardHost) => ({ channel: 'home', publicKey })

  t.beforeEach(forgetSessions)

  t.test('hosts reach each other through the relay only', async (t) => {
    await t.rejects(a.namespace.run('ping', ['-c', '1', '-W', '1', b.linkAddress]), /unreachable/)
    t.equal(await a.ping(b, 2, 1), 0, 'no answer without the relay')
    await forgetSessions() // WireGuard would not try again at once
    const relay = await network.startRelay(t, inOneChannel)
    await network.connect(t, a, relay)
    await network.connect(t, b, relay)
    t.equal(await a.ping(b), 5)
    t.equal(await b.ping(a), 5)
  })

  t.test('a host that speaks first is answered without the option --forward', async (t) => {
    const relay = await network.startRelay(t, inOneChannel)
    await network.connect(t, a, relay, { forward: false })
    await network.connect(t, b, relay)
    t.equal(await a.ping(b), 5)
  })

  t.test('three peers in one channel reach each other at once', async (t) => {
    const relay = await network.startRelay(t, inOneChannel)
    await Promise.all([a, b, c].map((host) => network.connect(t, host, relay)))
    t.same(await Promise.all([a.ping(b), b.ping(c), c.ping(a), b.ping(a), c.ping(b), a.ping(c)]), [5, 5, 5, 5, 5, 5])
  })

  t.test('peers of two channels cannot reach each other', async (t) => {
    const relay = await network.startRelay(t, ({ name }) => ({ id: name, channel: name < 'c' ? 'home' : 'office' }))
    await Promise.all([a, b, c, d].map((host) => network.connect(t, host, relay)))
    t.same(await Promise.all([a.ping(b), c.ping(d)]), [5, 5], 'inside the channels')
    t.same(await Promise.all([a.ping(c, 5, 2), d.ping(b, 5, 2)]), [0, 0], 'between them')
    t.equal(await a.latestHandshake(c), 0)
    t.equal(await d.latestHandshake(b), 0)
  })

  t.test('with public keys an initiation reaches the one peer it is for', async (t) => {
    const relay = await network.startRelay(t, withKeys)
    await Promise.all([a, b, c, d].map((host) => network.connect(t, host, relay)))
    t.equal(await a.ping(b), 5)
    const { stats, peers } = await relay.statistics()
    t.same(stats.initiations, { unicast: 1, fannedOut: 0, unmatched: 0 })
    for (const bystander of [c, d]) {
      t.equal(peers.find(({ id }) => id === bystander.publicKey)?.datagramsOut, 0, `nothing went to ${bystander.name}`)
    }
  })

  t.test('without public keys an initiation reaches every other peer once', async (t) => {
    const relay = await network.startRelay(t, inOneChannel)
    await Promise.all([a, b, c, d].map((host) => network.connect(t, host, relay)))
    const before = b.receivedInitiations
    t.equal(await a.ping(b), 5)
    t.equal(b.receivedInitiations, before + 1)
    const { stats, peers } = await relay.statistics()
    t.same(stats.initiations, { unicast: 0, fannedOut: 1, unmatched: 0 })
    for (const bystander of [c, d]) {
      t.equal(peers.find(({ id }) => id === bystander.name)?.datagramsOut, 1, `one datagram went to ${bystander.name}`)
    }
  })

  t.test('wg on one side, len16 on the other, both over TLS', async (t) => {
    const relay = await network.startRelay(t, withKeys, { https: true })
    await network.connect(t, a, relay, { framing: 'wg' })
    await network.connect(t, b, relay, { framing: 'len16' })
    t.equal(await a.ping(b), 5)
    t.equal(await b.ping(a), 5)
    const { peers } = await relay.statistics()
    t.same(peers.map(({ framing }) => framing).sort(), ['len16', 'wg'])
  })

  t.test('when the relay crashes and is started again, two peers go on at once', async (t) => {
    const relay = await network.startRelay(t, inOneChannel)
    const sidecars = await Promise.all([a, b].map((host) => network.connect(t, host, relay)))
    const ping = a.startPing(t, b)
    await ping.answers(3, 10_000)
    const handshake = await a.latestHandshake(b)
    const told = sidecars.map((sidecar) => sidecar.told)
    await relay.stop('SIGKILL')
    await relay.start()
    const since = performance.now()
    await Promise.all(sidecars.map((sidecar, index) => sidecar.event('connect', 20_000, told[index])))
    t.comment(`connected again after ${Math.round(performance.now() - since)} ms`)
    t.comment(`pinged again after another ${Math.round(await ping.answers(1, 3000))} ms`)
    await ping.answers(15, 5000) // more than a sidecar keeps of an outage
    t.equal(await a.latestHandshake(b), handshake, 'in the same WireGuard session')
  })

  t.test('when the relay is stopped and started again, three peers go on within 30 s', async (t) => {
    const relay = await network.startRelay(t, inOneChannel)
    const sidecars = await Promise.all([a, b, c].map((host) => network.connect(t, host, relay)))
    const pings = [a.startPing(t, b), b.startPing(t, c), c.startPing(t, a)]
    await Promise.all(pings.map((ping) => ping.answers(3, 10_000)))
    const told = sidecars.map((sidecar) => sidecar.told)
    await relay.stop()
    await relay.start()
    const since = performance.now()
    await Promise.all(sidecars.map((sidecar, index) => sidecar.event('connect', 20_000, told[index])))
    t.comment(`connected again after ${Math.round(performance.now() - since)} ms`)
    const left = 30_000 - (performance.now() - since)
    const took = await Promise.all(pings.map((ping) => ping.answers(1, left)))
    t.comment(`pinged again after another ${took.map(Math.round).join(', ')} ms`)
  })

  t.test('a sidecar that is killed and comes back with its id keeps its sessions', async (t) => {
    const relay = await network.startRelay(t, inOneChannel)
    const [, sidecar] = await Promise.all([a, b, c].map((host) => network.connect(t, host, relay))) as [Sidecar, Sidecar, Sidecar]
    const pings = [a.startPing(t, b), b.startPing(t, c), c.startPing(t, a)]
    await Promise.all(pings.map((ping) => ping.answers(3, 10_000)))
    const before = await handshakes()
    const { initiations } = (await relay.statistics()).stats
    await sidecar.program.stop('SIGKILL')
    await network.connect(t, b, relay)
    await Promise.all(pings.map((ping) => ping.answers(5, 5000)))
    t.same(await handshakes(), before, 'no new handshake')
    t.same((await relay.statistics()).stats.initiations, initiations, 'and none was tried')

    function handshakes (): Promise<number[]> {
      return Promise.all([a.latestHandshake(b), b.latestHandshake(a), b.latestHandshake(c), c.latestHandshake(b)])
    }
  })

  // The last one: its TCP connections may linger and start handshakes of their own.
  t.test('100 MB of TCP arrive in both directions', async (t) => {
    t.setTimeout(90_000)
    const relay = await network.startRelay(t, inOneChannel)
    await network.connect(t, a, relay)
    await network.connect(t, b, relay)
    for (const direction of [[], ['--reverse']]) {
      const server = b.namespace.start('iperf3', ['--server', '--one-off', '--forceflush'])
      await server.line((line) => line.includes('Server listening'), 5000)
      // iperf3 counts what has arrived by the time the sender has written all: what is in the buffers is not in it.
      const report = JSON.parse(await a.namespace.run('iperf3', [
        '--client', b.address, '--bytes', '106M', '--window', '1M', '--json', ...direction
      ], { timeout: 60_000 })).end
      t.ok(report.sum_received.bytes >= 100 * MEBIBYTE, `${direction} received`, report)
      t.comment(`${Math.round(report.sum_received.bits_per_second / 1e6)} Mbit/s, ${report.sum_sent.retransmits} retransmits`)
    }
  })
})
