import t from 'tap'
import { Clock } from '../../lib/hub/clock.ts'
import { startRelay } from '../helpers/relay.ts'
import { openTunnel, settle, type Tunnel } from '../helpers/tunnel.ts'
import { initiation, publicKey } from '../helpers/wireguard-messages.ts'

const KEYS = 60
const SENDERS = 12

t.test('one channel cannot take the tests of mac1 away from the others', async (t) => {
  const app = await startRelay(t)
  const hostile: Tunnel[] = []
  for (let i = 0; i < KEYS; i++) hostile.push(await openTunnel(t, app, { path: '/relay/hostile', key: publicKey() }))
  const keys = Array.from({ length: 8 }, publicKey)
  const others: Tunnel[] = []
  for (const key of keys) others.push(await openTunnel(t, app, { path: '/relay/other', key }))
  const last = others.at(-1)!

  let drops = 0
  for (let round = 0; round < 5; round++) {
    // Initiations for nobody: each is tested against every key of the channel.
    for (const tunnel of hostile.slice(0, SENDERS)) tunnel.send(...Array.from({ length: 40 }, (_, i) => initiation(i)))
    await settle(...hostile.slice(0, SENDERS))
    const before = app.relayHub.stats().drops['mac1-budget']
    others[0]!.send(initiation(round, keys.at(-1)))
    await settle(others[0]!, last)
    drops += app.relayHub.stats().drops['mac1-budget'] - before
  }
  t.equal(drops, 0, 'drops')
  t.equal(last.take().length, 5, 'initiations in the other channel')
})

t.test('one client cannot take them away from the others, however many channels and peers it has', async (t) => {
  // No budget fills up meanwhile.
  t.intercept(Clock.prototype, 'tick', { value () {} })
  const app = await startRelay(t, { maxClientPeers: 1000 })
  const hostile: Tunnel[] = []
  for (let i = 0; i < 120; i++) hostile.push(await openTunnel(t, app, { path: `/relay/hostile-${i % 4}`, key: publicKey() }))
  const keys = Array.from({ length: 8 }, publicKey)
  const others: Tunnel[] = []
  for (const key of keys) others.push(await openTunnel(t, app, { path: '/relay/other', key, from: '127.0.0.2' }))
  const last = others.at(-1)!

  // Ten thousand tests for each channel, and more than that are asked for.
  for (const tunnel of hostile) tunnel.send(...Array.from({ length: 40 }, (_, i) => initiation(i)))
  await settle(...hostile)
  const before = app.relayHub.stats().drops['mac1-budget']
  t.ok(before > 0)
  others[0]!.send(initiation(1, keys.at(-1)))
  await settle(others[0]!, last)
  t.equal(app.relayHub.stats().drops['mac1-budget'], before)
  t.equal(last.take().length, 1, 'initiations in the channel of another client')
})
