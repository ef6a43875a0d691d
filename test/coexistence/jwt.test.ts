import jwt from '@fastify/jwt'
import bearerAuth from '@fastify/bearer-auth'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t from 'tap'
import { orders, startPair, testRestUnchanged, testTunnels } from '../helpers/coexistence.ts'
import { upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, testRefusal } from '../helpers/relay-app.ts'

const secret = 'for tests only'
const authenticate = async (request: FastifyRequest): Promise<void> => { await request.jwtVerify() }
const bearer = (token: string): { headers: Record<string, string> } => ({ headers: { Authorization: `Bearer ${token}` } })

for (const [where, order] of Object.entries(orders)) {
  // What it decorates is there in its own scope and those within.
  const isReached = order.otherPrefix === ''
  t.test(`@fastify/jwt ${where}`, async (t) => {
    let issuer: FastifyInstance | undefined
    const pair = await startPair(t, order, async (scope) => {
      await scope.register(jwt, { secret })
      issuer ??= scope
    }, { route: isReached ? { onRequest: authenticate } : {} })
    const { app, relay } = pair
    if (isReached) {
      const path = `${order.relayPrefix}/relay/x`
      await testRefusal(t, relay, upgradeText(path), { statusCode: 401, toldCode: 'FST_JWT_NO_AUTHORIZATION_IN_HEADER' })
      await testRefusal(t, relay, upgradeText(path, bearer('a.b.c')), { statusCode: 401, toldCode: 'FST_JWT_AUTHORIZATION_TOKEN_INVALID' })
      await testRefusal(t, relay, upgradeText(path, bearer(issuer!.jwt.sign({ sub: 'laptop' }, { expiresIn: -1 }))), { statusCode: 401, toldCode: 'FST_JWT_AUTHORIZATION_TOKEN_EXPIRED' })
    }
    await testTunnels(t, app, order.relayPrefix, bearer(issuer!.jwt.sign({ sub: 'laptop' })))
    await testRestUnchanged(t, pair)
  })
}

t.test('what a token says decides who the peer is', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(jwt, { secret })
    app.relay('/relay', {
      onRequest: authenticate,
      identify: (request) => {
        const { sub, network } = request.user as { sub: string, network: string }
        return { id: sub, channel: network }
      }
    })
  })
  for (const [sub, network] of [['laptop', 'home'], ['nas', 'home'], ['phone', 'away']] as const) {
    await openBare(t, app, '/relay', bearer(app.jwt.sign({ sub, network })))
  }
  t.same(app.relayHub.peers().map(({ id, channel }) => [id, channel.name]), [['laptop', 'home'], ['nas', 'home'], ['phone', 'away']])
})

t.test('@fastify/bearer-auth in the scope of the relay guards it', async (t) => {
  for (const order of ['before', 'after']) {
    await t.test(`registered ${order}`, async (t) => {
      const app = await startApp(t, async (app) => {
        await app.register(async (scope) => {
          const guard = async (): Promise<void> => { await scope.register(bearerAuth, { keys: new Set(['right']) }) }
          if (order === 'before') await guard()
          scope.relay('/relay/:channel')
          if (order === 'after') await guard()
        })
        app.get('/rest', async () => 'rest')
      })
      await testRefusal(t, app, upgradeText('/relay/x'), { statusCode: 401 })
      await testRefusal(t, app, upgradeText('/relay/x', bearer('wrong')), { statusCode: 401 })
      await testTunnels(t, app, '', bearer('right'))
      t.equal((await app.inject('/rest')).body, 'rest')
    })
  }
})
