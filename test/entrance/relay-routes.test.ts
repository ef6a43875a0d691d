import t from 'tap'
import Fastify, { type FastifyServerOptions } from 'fastify'
import type { IncomingMessage } from 'node:http'
import { RelayRoutes } from '../../lib/entrance/relay-routes.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { openBare, startApp } from '../helpers/relay-app.ts'

interface Case {
  server?: FastifyServerOptions
  relays: string[]
  others?: string[]
  claimed: string[]
  unclaimed: string[]
}

const cases: Record<string, Case> = {
  'a static path': { relays: ['/relay'], claimed: ['/relay', '/relay?x=1', '/%72elay'], unclaimed: ['/', '/relay/', '/relay/x', '/Relay', '*', ''] },
  'a parameter': { relays: ['/relay/:net'], claimed: ['/relay/a', '/relay/a%2Fb', '/relay/a?x'], unclaimed: ['/relay', '/relay/a/b', '/relay/%zz', `/relay/${'a'.repeat(101)}`] },
  'a parameter, beside a static route': { relays: ['/relay/:net'], others: ['/relay/status'], claimed: ['/relay/a', '/relay/statusx'], unclaimed: ['/relay/status', '/relay/%73tatus', '/relay/status?x'] },
  'a static path beside a parameter': { relays: ['/relay/status'], others: ['/relay/:net'], claimed: ['/relay/status'], unclaimed: ['/relay/a'] },
  'a wildcard beside others': { relays: ['/*'], others: ['/rest', '/users/:id'], claimed: ['/', '/relay', '/rest/x', '/users'], unclaimed: ['/rest', '/users/5'] },
  'several parameters': { relays: ['/:a/:b'], others: ['/:a/x'], claimed: ['/1/2'], unclaimed: ['/1/x', '/1', '/1/2/3'] },
  'an optional parameter': { relays: ['/relay/:net?'], claimed: ['/relay', '/relay/a'], unclaimed: ['/'] },
  'a parameter with a pattern': { relays: ['/relay/:net(^[a-z]+$)'], claimed: ['/relay/a'], unclaimed: ['/relay/1'] },
  'letters of any case': { server: { routerOptions: { caseSensitive: false } }, relays: ['/Relay/:net'], others: ['/relay/status'], claimed: ['/relay/A', '/RELAY/a'], unclaimed: ['/RELAY/STATUS'] },
  'a slash at the end': { server: { routerOptions: { ignoreTrailingSlash: true } }, relays: ['/relay'], others: ['/rest'], claimed: ['/relay', '/relay/'], unclaimed: ['/rest/'] },
  'repeated slashes': { server: { routerOptions: { ignoreDuplicateSlashes: true } }, relays: ['/a/relay'], claimed: ['/a//relay', '//a/relay'], unclaimed: ['/a'] },
  'long parameters': { server: { routerOptions: { maxParamLength: 5 } }, relays: ['/:net'], claimed: ['/12345'], unclaimed: ['/123456'] },
  'a semicolon as delimiter': { server: { routerOptions: { useSemicolonDelimiter: true } } as FastifyServerOptions, relays: ['/relay'], claimed: ['/relay;x=1'], unclaimed: ['/rest;x=1'] }
}

for (const [what, { server = {}, relays, others = [], claimed, unclaimed }] of Object.entries(cases)) {
  t.test(`finds the requests of relay routes: ${what}`, async (t) => {
    const app = Fastify(server)
    const routes = new RelayRoutes(app)
    for (const path of relays) {
      app.get(path, async () => 'relay')
      routes.add(path, {}, true)
    }
    for (const path of others) app.get(path, async () => 'other')
    await app.ready()
    for (const url of claimed) t.ok(routes.has({ method: 'GET', url, headers: {} } as IncomingMessage), url)
    for (const url of unclaimed) t.notOk(routes.has({ method: 'GET', url, headers: {} } as IncomingMessage), url)
    for (const method of ['HEAD', 'POST', 'CONNECT']) t.notOk(routes.has({ method, url: claimed[0], headers: {} } as IncomingMessage), method)
    // The router that decides must agree.
    for (const url of claimed.filter((url) => url.startsWith('/'))) t.equal((await app.inject({ url })).body, 'relay', `${url} goes to the relay route`)
  })
}

t.test('has nothing without relay routes', (t) => {
  const routes = new RelayRoutes(Fastify())
  t.notOk(routes.has({ method: 'GET', url: '/', headers: {} } as IncomingMessage))
  t.notOk(routes.has({ method: 'GET' } as IncomingMessage))
  t.end()
})

t.test('a more specific route keeps its requests, Upgrade or not', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay/:network')
    app.get('/relay/status', async (request) => ({ offered: request.headers.upgrade }))
  })
  const client = await RawClient.dial(t, app)
  for (let i = 0; i < 2; i++) {
    await client.send(requestText('/relay/status', { headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }))
    const { statusCode, headers, body } = await client.answer()
    t.match({ statusCode, headers, body: JSON.parse(body) }, { statusCode: 200, headers: { connection: 'keep-alive' }, body: { offered: 'h2c' } })
  }
  await client.upgrade(t, '/relay/home')
  t.match(app.relayHub.channels(), [{ name: 'home', scope: '/relay/:network' }])
})

t.test('a relay route with a constraint answers where it is met', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/tunnel', { constraints: { host: 'relay.example.com' } })
    app.get('/tunnel', { constraints: { host: 'www.example.com' } }, async () => 'a page')
  })
  await openBare(t, app, '/tunnel', { host: 'relay.example.com' })
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/tunnel', { host: 'www.example.com', headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }))
  t.equal((await client.answer()).body, 'a page')
})

t.test('routes of one pattern may differ in their constraints and the names of their parameters', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/tunnel/:a', { constraints: { host: 'a.example.com' } })
    app.relay('/tunnel/:b', { constraints: { host: 'b.example.com' } })
  })
  for (const host of ['a.example.com', 'b.example.com']) {
    const client = await openBare(t, app, '/tunnel/x', { host })
    client.socket.destroy()
  }
  t.equal(app.relayHub.stats().attached, 2)
})
