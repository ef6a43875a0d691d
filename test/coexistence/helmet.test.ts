import helmet from '@fastify/helmet'
import t from 'tap'
import { orders, startPair, testRestUnchanged, testTunnels } from '../helpers/coexistence.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, testJoined, testRefusal } from '../helpers/relay-app.ts'

// @fastify/helmet sets headers in an onRequest hook, some of them on the raw response.

const hsts = { 'strict-transport-security': /^max-age=/ }

for (const [where, order] of Object.entries(orders)) {
  t.test(`@fastify/helmet ${where}`, async (t) => {
    const pair = await startPair(t, order, async (scope) => { await scope.register(helmet) })
    const { relay } = pair
    const path = `${order.relayPrefix}/relay/x`
    const isReached = order.otherPrefix === ''
    await testRefusal(t, relay, upgradeText(path, { headers: { 'Spanza-Framing': 'none' } }),
      { statusCode: 400, code: 'FST_RELAY_FRAMING', ...(isReached ? { headers: hsts } : {}) })
    await testTunnels(t, relay, order.relayPrefix)
    await testRestUnchanged(t, pair)
  })
}

t.test('its headers on a 101 are harmless', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(helmet)
    app.relay('/relay')
  })
  const client = await RawClient.dial(t, app)
  const { head, headers } = await client.upgrade(t, '/relay')
  t.match(head, /^HTTP\/1\.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n/)
  t.match(headers, hsts)
  for (const name of ['content-length', 'content-type', 'transfer-encoding']) t.notOk(name in headers, name)
  await testJoined(t, client, await openBare(t, app, '/relay'))
})
