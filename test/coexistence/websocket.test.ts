import { once } from 'node:events'
import websocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { echo, orders, startPair, testRestUnchanged, testTunnels } from '../helpers/coexistence.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { openWebSocket } from '../helpers/websocket.ts'

// @fastify/websocket listens to every upgrade, and wraps the handler of every route that is defined behind it.

async function registerWebSockets (scope: FastifyInstance): Promise<void> {
  await scope.register(websocket)
  scope.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(String(message))) })
  scope.get('/ws/guarded', { websocket: true, onRequest: async (_request, reply) => await reply.code(401).send() }, (socket) => socket.close())
  scope.route({
    method: 'GET',
    url: '/ws/both',
    handler: async () => 'plain',
    wsHandler: (socket) => { socket.on('message', (message) => socket.send(String(message))) }
  })
}

for (const [where, order] of Object.entries(orders)) {
  t.test(`@fastify/websocket ${where}`, async (t) => {
    const pair = await startPair(t, order, registerWebSockets)
    const { app } = pair
    const { relayPrefix, otherPrefix } = order

    await t.test('has its WebSockets, the relay its tunnels, in turns', async (t) => {
      for (let i = 0; i < 2; i++) {
        t.equal(await echo(app, `${otherPrefix}/ws`), 'hello')
        await testTunnels(t, app, relayPrefix)
        t.equal(await echo(app, `${otherPrefix}/ws/both`), 'hello')
        t.equal((await app.inject(`${otherPrefix}/ws/both`)).body, 'plain')
      }
      t.equal(await echo(app, `${otherPrefix}/ws/guarded`), '401')
    })

    await t.test('leaves the WebSockets of a relay route to the relay', async (t) => {
      const client = await RawClient.dial(t, app)
      await client.send(requestText(`${relayPrefix}/relay/x`))
      t.match(await client.answer(), { statusCode: 426 })
      let opened = 0
      app.websocketServer?.on('headers', () => opened++)
      const [from, to] = await Promise.all([0, 1].map(async () => await openWebSocket(t, app, `${relayPrefix}/relay/x`)))
      from!.send('a datagram', { binary: true })
      const [message] = await once(to!, 'message')
      t.equal(String(message), 'a datagram')
      t.equal(opened, app.websocketServer === undefined ? 0 : 2, 'opened by its server where that is in reach')
      t.equal(app.websocketServer?.clients.size ?? 0, 0, 'and not among its clients')
    })

    await t.test('leaves REST as it is without the relay', async (t) => {
      await testRestUnchanged(t, pair)
    })

    await t.test('injects its WebSockets', async (t) => {
      // It is decorated where it was registered.
      if (app.injectWS === undefined) return t.pass('not from outside of its scope')
      const socket = await app.injectWS(`${otherPrefix}/ws`)
      const answer = new Promise((resolve) => socket.on('message', (message) => resolve(String(message))))
      socket.send('hello')
      t.equal(await answer, 'hello')
      socket.terminate()
      await t.rejects(app.injectWS(`${relayPrefix}/relay/x`), { message: /426/ })
      await t.rejects(app.injectWS(`${relayPrefix}/relay/x`, { headers: { upgrade: 'spanza' } }), { message: /426/ })
    })

    await t.test('closes with a WebSocket and a tunnel open', async (t) => {
      const { app } = await startPair(t, order, registerWebSockets)
      await testTunnels(t, app, relayPrefix)
      const client = await RawClient.dial(t, app)
      await client.send(requestText(`${otherPrefix}/ws`, { headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' } }))
      t.equal((await client.head()).statusCode, 101)
      const closed = app.close()
      // An empty close frame, masked: what a client answers.
      await client.send(Buffer.from([0x88, 0x80, 0, 0, 0, 0]))
      await Promise.all([closed, client.closed])
    })
  })
}
