import Fastify from 'fastify'
import t from 'tap'
import relayAdmin, { type RelayAdminOptions } from '../../lib/admin/index.ts'
import spanzaRelay from '../../lib/index.ts'
import { startAdmin } from './admin-app.ts'

const refuse = async (): Promise<void> => { throw Object.assign(new Error('no'), { statusCode: 401 }) }

const routes = ['', '/', '/page.js', '/uPlot.iife.min.js', '/stats', '/channels', '/peers', '/peer?id=a&channel=b', '/history', '/events', '/disconnect']

const unguarded: Record<string, RelayAdminOptions> = {
  'no options': {},
  'a guard that is undefined': { onRequest: undefined as never },
  'an empty list of guards': { preHandler: [] },
  'a hook that guards nothing': { onResponse: async () => {} } as RelayAdminOptions,
  'insecure: false': { insecure: false }
}

for (const [what, options] of Object.entries(unguarded)) {
  t.test(`with ${what} it does not register, and says that it cannot see outer scopes`, async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(spanzaRelay)
    app.addHook('onRequest', refuse)
    await t.rejects(async () => await app.register(relayAdmin, options), { code: 'FST_RELAY_ADMIN_UNGUARDED', message: /outer scope cannot be seen.*insecure: true/ })
  })
}

for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const) {
  for (const guard of [refuse, [async () => {}, refuse]]) {
    t.test(`${name}, ${Array.isArray(guard) ? 'the second of two' : 'one'}, guards all that is in the scope and nothing else`, async (t) => {
      const app = Fastify()
      t.teardown(() => app.close())
      await app.register(spanzaRelay)
      app.get('/rest', async () => 'ok')
      await app.register(relayAdmin, { prefix: '/relay-admin', [name]: guard })
      for (const route of routes) {
        const url = `/relay-admin${route}`
        const answer = route === '/disconnect'
          ? await app.inject({ url, method: 'POST', payload: { id: 'a', channel: 'b' } })
          : await app.inject({ url })
        t.equal(answer.statusCode, 401, url)
      }
      t.equal((await app.inject('/rest')).statusCode, 200)
    })
  }
}

t.test('insecure: true registers without a guard', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(spanzaRelay)
  await app.register(relayAdmin, { prefix: '/relay-admin', insecure: true })
  t.equal((await app.inject('/relay-admin/stats')).statusCode, 200)
})

t.test('without a relay in its scope it does not register', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await t.rejects(async () => await app.register(relayAdmin, { onRequest: refuse }), { code: 'FST_RELAY_ADMIN_HUB' })
})

t.test('without the credentials there is 401, and with them the page', async (t) => {
  const app = await startAdmin(t)
  const answer = await app.inject('/relay-admin/')
  t.equal(answer.statusCode, 401)
  t.match(answer.headers['www-authenticate'], /^Basic/, 'which a browser can pass')
})
