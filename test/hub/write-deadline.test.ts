import { createServer, type AddressInfo, type Socket } from 'node:net'
import { once } from 'node:events'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WriteDeadline } from '../../lib/hub/write-deadline.ts'
import { FakeTunnel } from '../helpers/fake-tunnel.ts'
import { startApp } from '../helpers/relay-app.ts'
import { detached, startRelay } from '../helpers/relay.ts'
import { openTunnel, type Tunnel } from '../helpers/tunnel.ts'

const options = { writeTimeout: 100 }

async function open (t: Test, app: FastifyInstance, id: string, reads: boolean): Promise<Tunnel> {
  return await openTunnel(t, app, { framing: 'raw', id, reads })
}

/** Sends as long as the relay takes anything. */
function flood (tunnel: Tunnel): void {
  const block = Buffer.alloc(256 * 1024)
  const more = (): void => { while (!tunnel.socket.destroyed && tunnel.write(block)); }
  tunnel.socket.on('drain', more)
  more()
}

t.test('a stream that takes nothing for too long is over its deadline, one that takes something is not', async (t) => {
  const tunnel = new FakeTunnel({ isOpen: false, highWaterMark: 1000 })
  const deadline = new WriteDeadline(tunnel)
  t.notOk(deadline.isOver(0, 0, 100))
  for (let i = 0; i < 3; i++) tunnel.write('x')
  t.notOk(deadline.isOver(3, 1000, 100), 'it begins to wait now')
  t.notOk(deadline.isOver(3, 1100, 100))
  await tunnel.takeOne()
  t.notOk(deadline.isOver(3, 1200, 100), 'it has taken one')
  t.notOk(deadline.isOver(3, 1300, 100))
  t.ok(deadline.isOver(3, 1301, 100))
  await tunnel.open()
  t.notOk(deadline.isOver(3, 2000, 100), 'nothing waits')
})

t.test('a raw tunnel that takes nothing any more breaks, and its pair with it', async (t) => {
  const app = await startRelay(t, options)
  const [a] = [await open(t, app, 'a', true), await open(t, app, 'b', false)]
  const leaving = Promise.all([detached(app, 'a'), detached(app, 'b')])
  flood(a)
  const [ofA, ofB] = await leaving
  t.match(ofB, { reason: 'write-deadline', text: 'nothing could be written for 100 ms' })
  t.match(ofA, { reason: 'partner-lost' })
  await a.closed
  t.match(a.error, { code: /ECONNRESET|EPIPE/ }, 'a reset, not an end')
  t.match(app.relayHub.stats().detached, { 'write-deadline': 1, 'partner-lost': 1 })
})

t.test('a TCP target that takes nothing any more has failed', async (t) => {
  const sockets: Socket[] = []
  const server = createServer({ pauseOnConnect: true }, (socket) => sockets.push(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const app = await startApp(t, (app) => {
    app.relay('/relay', { target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`, identify: () => ({ id: 'a' }) })
  }, { relay: options })
  const a = await openTunnel(t, app, { path: '/relay', framing: 'raw' })
  const leaving = detached(app, 'a')
  flood(a)
  t.match(await leaving, { reason: 'target-failed', text: 'nothing could be written to the target for 100 ms' })
})
