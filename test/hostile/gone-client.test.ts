import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { upgradeText } from '../helpers/raw-client.ts'
import { askForUpgrade, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

const HANDSHAKES = 40

/** Clients that reset their connection behind the request: when the relay reads it, the socket has no address any more. */
async function resetMany (app: FastifyInstance): Promise<void> {
  const { port } = app.server.address() as AddressInfo
  for (let i = 0; i < HANDSHAKES; i++) {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.write(upgradeText('/relay'), () => socket.resetAndDestroy())
    await once(socket, 'close')
  }
  await until(() => {
    const { attached, refused } = app.relayHub.stats()
    return attached + Object.values(refused).reduce((sum, count) => sum + count, 0) >= HANDSHAKES
  })
}

t.test('who resets the connection behind the request does not get past the rate of its address to the hooks of the app', async (t) => {
  let hooks = 0
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async () => { hooks++ } }), { relay: { clientHandshakesPerSecond: 1 } })
  await resetMany(app)
  // Five at once, and what a slow machine's seconds add.
  t.ok(hooks <= HANDSHAKES / 2, `the hooks ran ${hooks} times`)
})

t.test('who resets the connection behind the request does not use up the rate of all', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), { relay: { clientHandshakesPerSecond: 1, handshakesPerSecond: 4 } })
  await resetMany(app)
  const answer = await askForUpgrade(t, app, '/relay', {}, { localAddress: '127.0.0.2' })
  t.equal(answer.statusCode, 101, 'another client')
})
