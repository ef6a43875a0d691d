import httpProxy from '@fastify/http-proxy'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { echo, orders, startPair, testRestUnchanged, testTunnels } from '../helpers/coexistence.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { startListening, testRefusal } from '../helpers/relay-app.ts'

// @fastify/http-proxy with `websocket: true` listens to upgrades itself: to those below its prefix, and to all others
// where it is the only one that listens.

/** A server behind the proxy, with a WebSocket and a route. */
async function startUpstream (t: Test): Promise<string> {
  const app = Fastify()
  await app.register(websocket)
  app.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(`upstream ${String(message)}`)) })
  app.get('/rest', async () => 'upstream rest')
  app.post('/rest', async (request) => request.body)
  await startListening(t, app)
  return `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`
}

t.test('@fastify/http-proxy', async (t) => {
  const upstream = await startUpstream(t)
  for (const [where, order] of Object.entries(orders)) {
    for (const asWebSocket of [true, false]) {
      await t.test(`${where}${asWebSocket ? '' : ', without WebSockets'}`, async (t) => {
        const pair = await startPair(t, order, async (scope: FastifyInstance) => {
          await scope.register(httpProxy, { upstream, prefix: '/proxy', websocket: asWebSocket as true })
        })
        const { app, relay, without } = pair
        const { relayPrefix, otherPrefix } = order

        await t.test('passes on what is its own, the relay has its tunnels, in turns', async (t) => {
          for (let i = 0; i < 2; i++) {
            if (asWebSocket) t.equal(await echo(app, `${otherPrefix}/proxy/ws`), 'upstream hello')
            await testTunnels(t, app, relayPrefix)
            const client = await RawClient.dial(t, app)
            await client.send(requestText(`${otherPrefix}/proxy/rest`))
            t.equal((await client.answer()).body, 'upstream rest')
          }
        })

        await t.test('is no concern of a relay route\'s refusals', async (t) => {
          await testRefusal(t, relay, upgradeText(`${relayPrefix}/relay/x`, { headers: { Upgrade: 'websocket', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' } }), { statusCode: 426, code: 'FST_RELAY_WEBSOCKET_VERSION' })
          t.equal((await app.inject(`${relayPrefix}/relay/x`)).statusCode, 426)
        })

        await t.test('leaves REST as it is without the relay', async (t) => {
          await testRestUnchanged(t, pair)
        })

        await t.test('answers an upgrade below its prefix as without the relay', async (t) => {
          const answers: unknown[] = []
          for (const each of [app, without]) {
            const client = await RawClient.dial(t, each)
            await client.send(upgradeText(`${otherPrefix}/proxy/rest`, { headers: { Upgrade: 'h2c' } }))
            const { statusCode, body } = await client.answer()
            answers.push({ statusCode, body })
          }
          t.same(answers[0], answers[1])
        })
      })
    }
  }

  await t.test('a relay route below the proxy\'s prefix is the relay\'s', async (t) => {
    for (const order of ['proxy first', 'relay first']) {
      await t.test(order, async (t) => {
        const app = Fastify()
        const relay = async (): Promise<void> => {
          await app.register(spanzaRelay)
          app.relay('/proxy/relay/:channel')
        }
        if (order === 'relay first') await relay()
        await app.register(httpProxy, { upstream, prefix: '/proxy', websocket: true })
        if (order === 'proxy first') await relay()
        await startListening(t, app)
        await testTunnels(t, app, '/proxy')
        t.equal(await echo(app, '/proxy/ws'), 'upstream hello')
        await testTunnels(t, app, '/proxy')
        t.equal((await app.inject('/proxy/rest')).body, 'upstream rest')
      })
    }
  })

  await t.test('at the root, with a relay beside it', async (t) => {
    const app = Fastify()
    await app.register(httpProxy, { upstream, websocket: true })
    await app.register(spanzaRelay)
    app.relay('/relay/:channel')
    await startListening(t, app)
    t.equal(await echo(app, '/ws'), 'upstream hello')
    await testTunnels(t, app)
    const client = await RawClient.dial(t, app)
    await client.send(requestText('/rest'))
    t.equal((await client.answer()).body, 'upstream rest')
    await app.close()
  })
})
