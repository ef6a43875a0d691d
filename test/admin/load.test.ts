import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { requestText } from '../helpers/raw-client.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'
import { authorization, get, startAdmin } from './admin-app.ts'

const REQUESTS = 400

/** A relay with one peer that looks like 500. @returns how many lists have been made */
async function startCrowded (t: Test): Promise<{ app: FastifyInstance, lists: () => number }> {
  const app = await startAdmin(t)
  const hub = app.relayHub
  const peers = hub.peers.bind(hub)
  let lists = 0
  hub.peers = () => {
    lists++
    return Array(500).fill(peers()[0])
  }
  return { app, lists: () => lists }
}

/** Asks for all peers, again and again, in one write, and reads nothing. */
async function askOften (t: Test, app: FastifyInstance): Promise<Socket> {
  const { port } = app.server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1' })
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  await new Promise((resolve) => socket.write(requestText('/relay-admin/peers?limit=500', { headers: { authorization } }).repeat(REQUESTS), resolve))
  return socket
}

t.test('answers that a client does not take are not made', async (t) => {
  const { app, lists } = await startCrowded(t)
  await openTunnel(t, app, { id: 'a' })
  await askOften(t, app)
  await until(() => lists() > 0)
  let before = -1
  // Until nothing happens any more but what is asked here.
  for (let still = 0; still < 20;) {
    t.equal((await get(app, 'stats')).statusCode, 200, 'another operator gets answers')
    still = lists() === before ? still + 1 : 0
    before = lists()
  }
  t.ok(lists() < REQUESTS / 2, `${lists()} lists of ${REQUESTS}`)
})

t.test('tunnels go on between the answers to a flood of requests', async (t) => {
  const { app, lists } = await startCrowded(t)
  const tunnel = await openTunnel(t, app, { id: 'a' })
  const socket = await askOften(t, app)
  let answers = 0
  socket.on('data', (chunk: Buffer) => { answers += chunk.toString('latin1').split('HTTP/1.1 200').length - 1 })
  await until(() => lists() > 0)
  await tunnel.roundTrip()
  t.ok(lists() < REQUESTS / 2, `${lists()} lists were made before the tunnel had its turn`)
  await until(() => lists() === REQUESTS)
  t.ok(answers > REQUESTS / 2, 'and all are answered')
})
