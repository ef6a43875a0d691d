import helmet from '@fastify/helmet'
import httpProxy from '@fastify/http-proxy'
import jwt from '@fastify/jwt'
import rateLimit from '@fastify/rate-limit'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { echo, orders, startPair, testRestUnchanged, testTunnels } from '../helpers/coexistence.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startListening, testRefusal } from '../helpers/relay-app.ts'

// An app with everything that one may want beside a relay.

t.test('all of them together', async (t) => {
  const upstream = Fastify()
  await upstream.register(websocket)
  upstream.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(`upstream ${String(message)}`)) })
  upstream.get('/rest', async () => 'upstream rest')
  await startListening(t, upstream)
  const upstreamUrl = `http://127.0.0.1:${(upstream.server.address() as AddressInfo).port}`

  const common: Record<string, (app: FastifyInstance) => unknown> = {
    limit: async (app) => await app.register(rateLimit, { max: 1000 }),
    jwt: async (app) => await app.register(jwt, { secret: 'for tests only' }),
    helmet: async (app) => await app.register(helmet)
  }
  const proxy = async (app: FastifyInstance, options: object = {}): Promise<unknown> =>
    await app.register(httpProxy, { upstream: upstreamUrl, prefix: '/proxy', ...options })
  // These two take each other's WebSockets, without the relay, too: the second answers on the first one's socket, and
  // an exception ends the process. So there is one of them, with the other's plain half.
  const sets: Record<string, typeof common> = {
    '@fastify/websocket': {
      websocket: async (app) => {
        await app.register(websocket)
        await app.register(async (scope) => {
          scope.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(String(message))) })
        })
      },
      proxy,
      ...common
    },
    '@fastify/http-proxy': { proxy: async (app) => await proxy(app, { websocket: true }), ...common }
  }
  for (const [what, others] of Object.entries(sets)) {
    await t.test(`with WebSockets of ${what}`, async (t) => { await testSet(t, others, what === '@fastify/websocket') })
  }
})

async function testSet (t: Test, others: Record<string, (app: FastifyInstance) => unknown>, hasOwn: boolean): Promise<void> {
  const names = Object.keys(others)

  for (let place = 0; place <= names.length; place++) {
    const sequence = [...names.slice(0, place), 'relay', ...names.slice(place)]
    await t.test(sequence.join(', '), async (t) => {
      const start = async (withRelay: boolean): Promise<FastifyInstance> => {
        const app = Fastify()
        for (const name of sequence) {
          if (name !== 'relay') await others[name]!(app)
          else if (withRelay) await app.register(spanzaRelay)
        }
        if (withRelay) app.relay('/relay/:channel', { onRequest: async (request) => { await request.jwtVerify() } })
        app.get('/rest', async (request) => ({ upgrade: request.headers.upgrade }))
        app.post('/rest', async (request) => request.body)
        return await startListening(t, app)
      }
      const app = await start(true)
      const token = { headers: { Authorization: `Bearer ${app.jwt.sign({ sub: 'laptop' })}` } }
      for (let i = 0; i < 2; i++) {
        await testTunnels(t, app, '', token)
        t.equal(hasOwn ? await echo(app, '/ws') : await echo(app, '/proxy/ws'), hasOwn ? 'hello' : 'upstream hello')
        const client = await RawClient.dial(t, app)
        await client.send(requestText('/proxy/rest'))
        t.equal((await client.answer()).body, 'upstream rest')
      }
      await testRefusal(t, app, upgradeText('/relay/x'), { statusCode: 401, toldCode: 'FST_JWT_NO_AUTHORIZATION_IN_HEADER', headers: { 'strict-transport-security': /./ } })
      const client = await RawClient.dial(t, app)
      t.match((await client.upgrade(t, '/relay/y', token)).headers, { 'x-ratelimit-limit': '1000', 'strict-transport-security': /./ })
      await testRestUnchanged(t, { app, without: await start(false) })
      const open = await openBare(t, app, '/relay/z', token)
      await app.close()
      await open.closed
    })
  }
}

t.test('a second registration of the relay is nothing but another plugin beside it', async (t) => {
  for (const [where, order] of Object.entries(orders)) {
    await t.test(where, async (t) => {
      // The pair's other app has one registration, so REST must be served alike with two.
      const pair = await startPair(t, order, async (scope) => {
        await scope.register(spanzaRelay)
        scope.relay('/second/:channel')
      })
      const { app } = pair
      for (let i = 0; i < 2; i++) {
        await testTunnels(t, app, order.relayPrefix)
        await openBare(t, app, `${order.otherPrefix}/second/${i}`)
      }
      await testRestUnchanged(t, pair)
      t.equal(app.server.listenerCount('upgrade'), 1)
      await app.close()
      t.equal(app.server.listenerCount('upgrade'), 0)
    })
  }
})
