import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { startRelay } from '../helpers/relay.ts'
import { openTunnel, settle, until, type Tunnel } from '../helpers/tunnel.ts'
import { initiation, publicKey, response, transportData } from '../helpers/wireguard-messages.ts'

// All clients lose their tunnels at once, as when a line is cut, and come back at once, while the relay still holds the
// old ones for alive.

const CLIENTS = 120
/** Neighbours are in one channel. */
const CHANNEL_SIZE = 30
const CHANNELS = CLIENTS / CHANNEL_SIZE

const devices = Array.from({ length: CLIENTS }, (_, number) => {
  return { id: `device ${number}`, key: publicKey(), path: `/relay/${Math.floor(number / CHANNEL_SIZE)}` }
})

async function connectAll (t: Test, app: FastifyInstance): Promise<Tunnel[]> {
  return await Promise.all(devices.map(async (device) => await openTunnel(t, app, device)))
}

/** The index that a device has for its session with its neighbour: devices are paired 0 and 1, 2 and 3, … */
function indexOf (number: number): number {
  return 1000 + number
}

/** A WireGuard handshake between each two neighbours. */
async function shakeHands (tunnels: Tunnel[]): Promise<void> {
  for (let first = 0; first < CLIENTS; first += 2) {
    tunnels[first]!.send(initiation(indexOf(first), devices[first + 1]!.key))
  }
  await Promise.all(tunnels.filter((_, number) => number % 2 === 1).map(async ({ datagrams }) => await datagrams.next()))
  for (let second = 1; second < CLIENTS; second += 2) {
    tunnels[second]!.send(response(indexOf(second), indexOf(second - 1)))
  }
  await Promise.all(tunnels.filter((_, number) => number % 2 === 0).map(async ({ datagrams }) => await datagrams.next()))
}

/** Tests that each device reaches its neighbour, and nobody else, by the session that the two have. */
async function testSessions (t: Test, tunnels: Tunnel[]): Promise<void> {
  for (const tunnel of tunnels) tunnel.take()
  const neighbour = (number: number): number => number % 2 === 0 ? number + 1 : number - 1
  const sent = tunnels.map((tunnel, number) => {
    const datagram = transportData(indexOf(neighbour(number)))
    tunnel.send(datagram)
    return datagram
  })
  await settle(...tunnels)
  const wrong = tunnels.filter((tunnel, number) => {
    const received = tunnel.take()
    return received.length !== 1 || !received[0]!.equals(sent[neighbour(number)]!)
  })
  t.equal(wrong.length, 0, 'each has got what its neighbour sent, and nothing else')
}

function testTables (t: Test, app: FastifyInstance, attached: number): void {
  const { relayHub } = app
  t.same(relayHub.peers().map(({ id }) => id).sort(), devices.map(({ id }) => id).sort(), 'each device is there once')
  t.same(relayHub.channels().map(({ peers }) => peers), Array.from({ length: CHANNELS }, () => CHANNEL_SIZE))
  t.match(relayHub.stats(), { peers: CLIENTS, channels: CHANNELS, attached })
}

async function startFor (t: Test): Promise<FastifyInstance> {
  // No room for anybody twice: who comes back needs none of its own.
  return await startRelay(t, { maxPeers: CLIENTS, maxChannelPeers: CHANNEL_SIZE, maxClientPeers: CLIENTS, maxClientUnfinishedHandshakes: 2 * CLIENTS })
}

t.test('all come back while the relay still has their old tunnels: each has one, with its sessions', async (t) => {
  const app = await startFor(t)
  let tunnels = await connectAll(t, app)
  await shakeHands(tunnels)
  await testSessions(t, tunnels)
  for (let storm = 1; storm <= 3; storm++) {
    // As when the cable is cut: nothing is read any more, and no end is sent.
    for (const { socket } of tunnels) socket.pause()
    const old = tunnels
    tunnels = await connectAll(t, app)
    testTables(t, app, CLIENTS * (1 + storm))
    t.equal(app.relayHub.stats().detached['replaced'], CLIENTS * storm)
    await testSessions(t, tunnels)
    for (const { socket } of old) socket.destroy()
  }
  t.same(app.relayHub.stats().refused, {})
})

t.test('all come back in another order, some twice, and some old tunnels break meanwhile', async (t) => {
  const app = await startFor(t)
  const old = await connectAll(t, app)
  await shakeHands(old)
  for (const { socket } of old) socket.pause()
  const passing: Tunnel[] = []
  const tunnels: Tunnel[] = []
  await Promise.all(devices.map(async (_, turn) => {
    const number = (turn * 7) % CLIENTS
    if (number % 3 === 0) old[number]!.socket.resetAndDestroy()
    if (number % 5 === 0) passing.push(await openTunnel(t, app, devices[number]))
    tunnels[number] = await openTunnel(t, app, devices[number])
  }))
  await until(() => app.relayHub.peers().length === CLIENTS)
  testTables(t, app, CLIENTS + CLIENTS + CLIENTS / 5)
  await testSessions(t, tunnels)
  for (const tunnel of passing) {
    await tunnel.closed
    t.match(tunnel.closing, { code: 3 }, 'replaced')
  }
})

t.test('when all have left, nothing remains', async (t) => {
  const app = await startFor(t)
  const old = await connectAll(t, app)
  const tunnels = await connectAll(t, app)
  for (const { socket } of old) socket.destroy()
  for (const { socket } of tunnels) socket.resetAndDestroy()
  await until(() => app.relayHub.peers().length === 0)
  const { peers, channels, attached, detached } = app.relayHub.stats()
  t.same([peers, channels, attached], [0, 0, CLIENTS * 2])
  t.equal(Object.values(detached).reduce((sum, count) => sum + count), CLIENTS * 2, 'each has left once')
  await connectAll(t, app)
  testTables(t, app, CLIENTS * 3)
})
