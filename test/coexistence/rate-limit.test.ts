import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { orders, startPair, testRestUnchanged, testTunnels } from '../helpers/coexistence.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, testRefusal } from '../helpers/relay-app.ts'

// @fastify/rate-limit adds its hook to each route that is defined behind it, in its scope and those within.

const register = async (scope: FastifyInstance): Promise<void> => {
  // Room for all tests of an order, and none for what the tests of limits add.
  await scope.register(rateLimit, { global: true, max: 100 })
}

for (const [where, order] of Object.entries(orders)) {
  t.test(`@fastify/rate-limit ${where}`, async (t) => {
    const pair = await startPair(t, order, register)
    await testTunnels(t, pair.app, order.relayPrefix)
    await testRestUnchanged(t, pair)
    await testTunnels(t, pair.app, order.relayPrefix)
  })
}

t.test('a limit for all routes', async (t) => {
  const start = async (): Promise<FastifyInstance> => await startApp(t, async (app) => {
    await app.register(rateLimit, { global: true, max: 3, timeWindow: 60_000 })
    app.relay('/relay')
    app.get('/rest', async () => 'rest')
  })
  const limited = {
    statusCode: 429,
    headers: { 'retry-after': /^\d+$/, 'x-ratelimit-limit': '3', 'x-ratelimit-remaining': '0' },
    message: /Rate limit exceeded/
  }

  await t.test('counts handshakes, its headers are on the 101, and the refusal is its own', async (t) => {
    const app = await start()
    for (let remaining = 2; remaining >= 0; remaining--) {
      const client = await RawClient.dial(t, app)
      const { headers } = await client.upgrade(t, '/relay', { headers: { 'Spanza-Framing': 'wg' } })
      t.match(headers, { 'x-ratelimit-limit': '3', 'x-ratelimit-remaining': String(remaining) })
    }
    await testRefusal(t, app, upgradeText('/relay'), limited)
    await testRefusal(t, app, upgradeText('/relay') + 'early data', limited)
    const client = await RawClient.dial(t, app)
    await client.send(requestText('/rest'))
    t.match(await client.answer(), { statusCode: 429, headers: { connection: 'keep-alive' } }, 'REST shares the limit')
  })

  await t.test('counts handshakes that fail, too', async (t) => {
    const app = await start()
    for (let i = 0; i < 3; i++) {
      await testRefusal(t, app, upgradeText('/relay', { headers: { 'Spanza-Framing': 'none' } }), { statusCode: 400, code: 'FST_RELAY_FRAMING' })
    }
    await testRefusal(t, app, upgradeText('/relay'), limited)
  })
})

t.test('a limit of the relay route alone', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(rateLimit, { global: false })
    app.relay('/relay', { config: { rateLimit: { max: 2, timeWindow: 60_000, keyGenerator: (request) => String(request.headers['x-device']) } } })
    app.get('/rest', async () => 'rest')
  })
  const of = (device: string): { headers: Record<string, string> } => ({ headers: { 'X-Device': device, 'Spanza-Framing': 'wg' } })
  for (const device of ['a', 'b']) {
    for (let i = 0; i < 2; i++) await openBare(t, app, '/relay', of(device))
    await testRefusal(t, app, upgradeText('/relay', of(device)), { statusCode: 429, headers: { 'x-ratelimit-limit': '2' } })
  }
  t.equal((await app.inject('/rest')).statusCode, 200)
})

t.test('a limit in a hook of the relay route', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(rateLimit, { global: false })
    app.relay('/relay', { preHandler: app.rateLimit({ max: 1, timeWindow: 60_000 }) })
  })
  await openBare(t, app, '/relay')
  await testRefusal(t, app, upgradeText('/relay'), { statusCode: 429, headers: { 'x-ratelimit-limit': '1' } })
})

t.test('a ban, which is a 403', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(rateLimit, { global: true, max: 1, ban: 0, timeWindow: 60_000 })
    app.relay('/relay')
  })
  await openBare(t, app, '/relay')
  await testRefusal(t, app, upgradeText('/relay'), { statusCode: 403 })
})
