import { randomBytes } from 'node:crypto'
import t from 'tap'
import { missingForNamespaces } from '../helpers/namespace.ts'
import { RelayNetwork } from '../helpers/relay-network.ts'
import type { WireGuardHost } from '../helpers/wireguard-host.ts'

// The mistakes that people make with WireGuard, each by a host of its own and all at the same time: what the relay can
// see of them has to stand in the sidecar's output, in the relay's log, and in what `peers()` tells.

const names = ['misled', 'unknown', 'outsider', 'waiting', 'stranger', 'nas', 'off', 'elsewhere'] as const

t.setTimeout(120_000)

const missing = missingForNamespaces(['wireguard-go', 'wg', 'ping'])

t.test('why two peers cannot talk', { skip: missing ?? false }, async (t) => {
  const network = await RelayNetwork.create(t, [...names])
  const host = Object.fromEntries(network.hosts.map((host) => [host.name, host])) as Record<typeof names[number], WireGuardHost>
  const relay = await network.startRelay(t, ({ name, publicKey }) => ({ id: name, channel: name === 'elsewhere' ? 'office' : 'home', publicKey }))
  const { nas } = host

  const mistakes = [
    {
      title: "the public key is another device's",
      who: host.misled,
      peer: { publicKey: host.stranger.publicKey, address: nas.address },
      fault: { fault: 'unanswered', id: 'stranger' },
      notice: /^3 handshakes to stranger were not answered: is WireGuard running there, with this device's public key\?$/,
      line: /^3 handshakes to stranger were not answered: is WireGuard running there, with this peer's public key\?$/
    },
    {
      title: "the public key is nobody's",
      who: host.unknown,
      peer: { publicKey: randomBytes(32).toString('base64'), address: nas.address },
      fault: { fault: 'no-responder' },
      notice: /^no device in the network home has the public key that your WireGuard asks for: is PublicKey under \[Peer\] right here, and the other device's publicKey right in the relay's app\?$/,
      line: /^no peer in its channel has the public key that its WireGuard asks for: is PublicKey under \[Peer\] right there, and is the other peer's publicKey that identify\(\) returns\?$/
    },
    {
      title: 'the device is in another network',
      who: host.outsider,
      peer: host.elsewhere,
      fault: { fault: 'no-responder' },
      // The same words: nobody learns who is in another network.
      notice: /^no device in the network home has the public key that your WireGuard asks for: is PublicKey under \[Peer\] right here, and the other device's publicKey right in the relay's app\?$/,
      line: /^no peer in its channel has the public key that its WireGuard asks for: is PublicKey under \[Peer\] right there, and is the other peer's publicKey that identify\(\) returns\?$/
    },
    {
      title: 'WireGuard is down at the other end',
      who: host.waiting,
      peer: host.off,
      fault: { fault: 'unanswered', id: 'off' },
      notice: /^3 handshakes to off were not answered: is WireGuard running there/,
      line: /^3 handshakes to off were not answered: is WireGuard running there/
    },
    {
      title: 'the other end has a wrong public key of this one',
      who: host.stranger,
      peer: nas,
      fault: { fault: 'unanswered', id: 'nas' },
      notice: /^3 handshakes to nas were not answered: .* with this device's public key\?$/,
      line: /^3 handshakes to nas were not answered: .* with this peer's public key\?$/
    }
  ]

  await host.off.stopWireGuard()
  await nas.setPeers([{ publicKey: randomBytes(32).toString('base64'), address: host.stranger.address }])
  await host.elsewhere.setPeers([host.outsider])
  for (const { who, peer } of mistakes) await who.setPeers([peer])
  await Promise.all([nas, host.off, host.elsewhere].map((each) => network.connect(t, each, relay)))
  const sidecars = await Promise.all(mistakes.map(({ who }) => network.connect(t, who, relay)))
  const seen = await Promise.all(mistakes.map(async ({ who, peer }, index) => {
    const [answers, notice] = await Promise.all([who.ping(peer, 30, 1), sidecars[index]!.event('notice', 30_000)])
    return { answers, notice }
  }))
  const { peers } = await relay.statistics()

  for (const [index, { title, who, fault, notice, line }] of mistakes.entries()) {
    t.test(title, async (t) => {
      t.equal(seen[index]!.answers, 0)
      t.match(seen[index]!.notice, { name: fault.fault, text: notice })
      const info = peers.find(({ id }) => id === who.name)!
      t.match(info.handshakeFaults, [fault])
      t.equal(info.lastHandshake, undefined)
      if (fault.fault === 'unanswered') t.match(info.handshakes, [{ id: fault.id, answered: 0 }])
      else t.ok(info.dropsByReason['no-responder']! >= 3)
      const lines = relay.log.filter((each) => each['peer'] === who.name && 'fault' in each)
      t.match(lines, [{ level: 40, msg: 'WireGuard handshakes of a relay peer fail', channel: 'home', text: line, fault: fault.fault, lastHandshake: null }])
      t.equal(lines.length, 1)
      t.equal(lines[0]!['to'], fault.id)
    })
  }
})
