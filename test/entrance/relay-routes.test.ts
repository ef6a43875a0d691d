import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { connect, type ClientHttp2Session } from 'node:http2'
import type { AddressInfo } from 'node:net'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { RelayRoutes } from '../../lib/entrance/relay-routes.ts'
import spanzaRelay from '../../lib/index.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { askForUpgrade, openBare, startApp, startListening, testJoined } from '../helpers/relay-app.ts'

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

/** As NestJS brings its own: values of any kind, compared as they are. */
function ownStrategy (name: string, read: (request: IncomingMessage) => unknown, isAsync = false) {
  const found = (request: IncomingMessage, done: (error: null, value: unknown) => void): void => { setImmediate(() => done(null, read(request))) }
  return {
    name,
    storage: () => {
      const stores = new Map<unknown, unknown>()
      return {
        get: (value: unknown) => stores.get(value) ?? null,
        set: (values: unknown, store: unknown) => { for (const value of [values].flat()) stores.set(value, store) }
      }
    },
    validate: () => {},
    deriveConstraint: isAsync
      ? (request: IncomingMessage, _context: unknown, done: (error: null, value: unknown) => void) => found(request, done)
      : (request: IncomingMessage) => read(request)
  }
}

const NEUTRAL = Symbol('neutral')
const replaced = {
  version: ownStrategy('version', ({ headers }) => headers['x-version'] === undefined ? NEUTRAL : Number(headers['x-version'])),
  host: ownStrategy('host', ({ headers }) => headers['x-tenant'])
}

for (const added of ['with the app', 'by addConstraintStrategy']) {
  for (const isHttp2 of [false, true]) {
    t.test(`a strategy of the app's own decides, ${added}, over HTTP/${isHttp2 ? 2 : 1.1}`, async (t) => {
      const app = Fastify({ ...(isHttp2 && { http2: true }), ...(added === 'with the app' && { routerOptions: { constraints: replaced } }) } as unknown as FastifyServerOptions)
      if (added !== 'with the app') for (const strategy of Object.values(replaced)) app.addConstraintStrategy(strategy as never)
      await app.register(spanzaRelay)
      for (const [version, host] of [[[1, 2], 'a'], [3, undefined], [NEUTRAL, 'b'], ['v2', undefined]] as const) {
        app.get('/rest/:id?', { constraints: { version, ...(host && { host }) } as never }, async () => String([version, host].flat().map(String)))
      }
      app.relay('/rest/:network', { constraints: { version: 4 } as never })
      app.relay('/relay/:network', { constraints: { version: [5, 6] } as never })
      app.relay('/plain')
      await startListening(t, app)
      await testStatuses(t, app, isHttp2, [
        ['/plain', {}, true], ['/relay/x', { 'x-version': '5' }, true], ['/relay/x', { 'x-version': '6' }, true], ['/relay/x', { 'x-version': '7' }, 404],
        ['/rest/x', { 'x-version': '4' }, true], ['/rest/x', { 'x-version': '3' }, isHttp2 ? 404 : 200], ['/rest', { 'x-version': '1', 'x-tenant': 'a' }, isHttp2 ? 404 : 200]
      ])
      t.same((await app.inject({ url: '/rest/x', headers: { 'x-version': '2', 'x-tenant': 'a' } })).body, '1,2,a')
    })
  }
}

t.test('a strategy that takes its time decides, too', async (t) => {
  const app = Fastify({ routerOptions: { constraints: { tenant: ownStrategy('tenant', ({ headers }) => headers['x-tenant'], true) } } } as unknown as FastifyServerOptions)
  await app.register(spanzaRelay)
  app.relay('/x', { constraints: { tenant: 'relay' } as never })
  app.get('/x', { constraints: { tenant: 'rest' } as never }, async () => 'rest')
  await startListening(t, app)
  await testStatuses(t, app, false, [['/x', { 'x-tenant': 'relay' }, true], ['/x', { 'x-tenant': 'rest' }, 200], ['/x', { 'x-tenant': 'none' }, 404]])
})

t.test("a REST route that may match by the app's own strategy does not hide a relay route behind it", async (t) => {
  const app = Fastify({ routerOptions: { constraints: replaced } } as unknown as FastifyServerOptions)
  await app.register(spanzaRelay)
  app.get('/rest', { constraints: { version: 1 } as never }, async () => 'rest')
  app.relay('/*')
  await startListening(t, app)
  await testStatuses(t, app, false, [['/rest', { 'x-version': '1' }, 200], ['/rest', { 'x-version': '2' }, true], ['/any', {}, true]])
})

for (const isHttp2 of [false, true]) {
  t.test(`a route / in a scope with a prefix has two URLs, and one channel, over HTTP/${isHttp2 ? 2 : 1.1}`, async (t) => {
    const app = Fastify({ ...(isHttp2 && { http2: true }) } as FastifyServerOptions)
    let { relayHub } = app
    await app.register(async (scope) => {
      await scope.register(spanzaRelay, { path: '/' })
      relayHub = scope.relayHub
      await scope.register(async (inner) => { inner.relay('/') }, { prefix: '/:network' })
      await scope.register(async (inner) => { inner.relay('/', { prefixTrailingSlash: 'slash' }) }, { prefix: '/slash' })
      await scope.register(async (inner) => { inner.relay('/', { prefixTrailingSlash: 'no-slash' }) }, { prefix: '/no-slash' })
      await scope.register(async (inner) => { inner.get('/', async () => 'rest') }, { prefix: '/rest' })
    }, { prefix: '/vpn' })
    await startListening(t, app)
    await testStatuses(t, app, isHttp2, [
      ['/vpn', {}, true], ['/vpn/', {}, true], ['/vpn/home', {}, true], ['/vpn/home/', {}, true], ['/vpn/slash/', {}, true], ['/vpn/no-slash', {}, true],
      ['/vpn/rest', {}, isHttp2 ? 426 : 200], ['/vpn/rest/', {}, isHttp2 ? 426 : 200]
    ])
    if (isHttp2) return
    await testJoined(t, await openBare(t, app, '/vpn/office'), await openBare(t, app, '/vpn/office/'))
    t.match(relayHub.channels().filter(({ name }) => name === 'office'), [{ scope: '/vpn/:network', peers: 2 }])
  })
}

t.test('with ignoreTrailingSlash there is one URL, which both are', async (t) => {
  const app = Fastify({ routerOptions: { ignoreTrailingSlash: true } })
  await app.register(async (scope) => { await scope.register(spanzaRelay, { path: '/' }) }, { prefix: '/vpn' })
  await startListening(t, app)
  await testStatuses(t, app, false, [['/vpn', {}, true], ['/vpn/', {}, true]])
})

for (const isHttp2 of [false, true]) {
  t.test(`rewriteUrl: what Fastify will route counts, over HTTP/${isHttp2 ? 2 : 1.1}`, async (t) => {
    const seen: object[] = []
    const app = Fastify({
      ...(isHttp2 && { http2: true }),
      rewriteUrl: function (this: object, request: IncomingMessage) {
        seen.push(this)
        if (request.url === '/bad') throw new Error('cannot be rewritten')
        return request.url!.replace(/^\/api/, '').replace('/taken', '/ws')
      }
    } as unknown as FastifyServerOptions)
    await app.register(websocket)
    let { relayHub } = app
    await app.register(async (scope) => {
      await scope.register(spanzaRelay)
      relayHub = scope.relayHub
      scope.relay('/relay/:network')
      scope.relay('/taken')
      scope.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(String(message))) })
    })
    await startListening(t, app)
    await testStatuses(t, app, isHttp2, [['/api/relay/x', {}, true], ['/relay/x', {}, true], ['/api/nothing', {}, 404]])
    t.ok(seen.every((self) => self === app), 'called as Fastify calls it')
    if (isHttp2) return
    t.match(relayHub.channels(), [{ name: 'x', scope: '/relay/:network' }])
    for (const path of ['/ws', '/api/ws', '/taken']) {
      const client = await RawClient.dial(t, app)
      await client.send(requestText(path, { headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' } }))
      t.equal((await client.head()).statusCode, 101, path)
    }
    t.equal(relayHub.stats().attached, 2, 'the WebSockets are not the relay')
    seen.length = 0
    await openBare(t, app, '/api/relay/y')
    t.equal(seen.length, 2, 'asked once before Fastify asks')
  })
}

t.test('a request is judged once, and anew when its URL has changed', async (t) => {
  const app = Fastify()
  const routes = new RelayRoutes(app)
  app.get('/relay/:net', async () => 'relay')
  routes.add('/relay/:net', {}, true)
  await app.ready()
  let lookUps = 0
  const { findRoute } = app
  app.findRoute = function (this: typeof app, options) {
    lookUps++
    return findRoute.call(app, options)
  } as typeof findRoute
  const request = { method: 'GET', url: '/relay/a', headers: {} } as IncomingMessage
  for (let i = 0; i < 3; i++) t.ok(routes.has(request))
  t.equal(lookUps, 1)
  request.url = '/other'
  t.notOk(routes.has(request))
})

/** @param rows a path, headers, and either the status that a request for a tunnel gets, or true where it gets one */
async function testStatuses (t: Test, app: FastifyInstance, isHttp2: boolean, rows: Array<[string, Record<string, string>, number | true]>): Promise<void> {
  const session = isHttp2 ? await connectSession(t, app) : undefined
  for (const [path, headers, expected] of rows) {
    const status = session !== undefined
      ? await connectStatus(session, path, headers)
      : (await askForUpgrade(t, app, path, { headers })).statusCode
    t.equal(status, expected === true ? (isHttp2 ? 200 : 101) : expected, `${path} ${JSON.stringify(headers)}`)
  }
}

async function connectSession (t: Test, app: FastifyInstance): Promise<ClientHttp2Session> {
  const session = connect(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  return session
}

async function connectStatus (session: ClientHttp2Session, path: string, headers: Record<string, string>): Promise<number> {
  const stream = session.request({ ':method': 'CONNECT', ':protocol': 'spanza', ':path': path, ':scheme': 'http', ':authority': 'localhost', ...headers }, { endStream: false })
  stream.on('error', () => {})
  const [{ ':status': status }] = await once(stream, 'response')
  stream.close()
  return status
}
