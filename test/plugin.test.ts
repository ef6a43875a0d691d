import Fastify from 'fastify'
import websocket from '@fastify/websocket'
import t from 'tap'
import * as publicNames from '../lib/index.ts'
import { openBare, startApp, startListening, testJoined, testRefusal } from './helpers/relay-app.ts'
import { upgradeText } from './helpers/raw-client.ts'

const { default: spanzaRelay } = publicNames

t.test('has these public names', (t) => {
  t.same(Object.keys(publicNames).sort(), ['default', 'errors', 'proxyProtocol'])
  t.end()
})

t.test('without path, registering opens nothing', async (t) => {
  const app = Fastify()
  const routes: unknown[] = []
  app.addHook('onRoute', (route) => { routes.push(route) })
  await app.register(spanzaRelay)
  await app.ready()
  t.same(routes, [])
  t.type(app.relay, 'function')
  t.match(app.relayHub.stats(), { peers: 0, attached: 0 })
  await app.close()
})

t.test('with path, registering mounts a relay route', async (t) => {
  const app = await startApp(t, () => {}, {
    relay: { path: '/relay/:network', hosts: ['localhost'], maxPacketSize: 1400, onRequest: async (_request, reply) => { reply.header('x-hook', 'ran') } }
  })
  t.equal(app.relayHub.options.maxPacketSize, 1400)
  const a = await openBare(t, app, '/relay/home')
  await testJoined(t, a, await openBare(t, app, '/relay/home'))
  await testRefusal(t, app, upgradeText('/relay/home', { host: 'other' }), { statusCode: 421, code: 'FST_RELAY_HOST_NOT_ALLOWED' })
  t.match(app.relayHub.channels(), [{ scope: '/relay/:network', name: 'home', kind: 'stream', peers: 2 }])
})

t.test('a second registration adds its route and shares the hub', async (t) => {
  const app = Fastify()
  await app.register(spanzaRelay, { path: '/one', scope: 'shared', maxPeers: 7 })
  const { relayHub } = app
  await app.register(spanzaRelay, { path: '/two', scope: 'shared' })
  await app.register(async (child) => {
    await child.register(spanzaRelay, { path: '/three' })
    t.equal(child.relayHub, relayHub)
  }, { prefix: '/child' })
  t.equal(app.relayHub, relayHub)
  t.equal(relayHub.options.maxPeers, 7)
  await startListening(t, app)
  await testJoined(t, await openBare(t, app, '/one'), await openBare(t, app, '/two'))
  await openBare(t, app, '/child/three')
  t.same(relayHub.channels().map(({ scope, peers }) => [scope, peers]), [['shared', 2], ['/child/three', 1]])
})

t.test('hub-wide options given twice are an error that names them', async (t) => {
  const app = Fastify()
  await app.register(spanzaRelay, { maxPeers: 5 })
  await t.rejects(async () => await app.register(spanzaRelay, { path: '/relay', maxPeers: 5, closeGrace: 1 }),
    { code: 'FST_RELAY_OPTIONS_TWICE', message: /maxPeers, closeGrace/ })
})

t.test('prefix is an error that says why', async (t) => {
  await t.rejects(async () => await Fastify().register(spanzaRelay, { path: '/relay', prefix: '/v1' }),
    { code: 'FST_RELAY_PREFIX', message: /no effect/ })
})

t.test('child scopes give their routes prefix and hooks', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(async (child) => {
      child.addHook('onRequest', async (request, reply) => {
        if (request.headers.authorization === undefined) await reply.code(401).send()
      })
      t.equal(child.relay('/relay/:network'), child, 'returns the instance')
    }, { prefix: '/v1' })
    t.equal(app.relay('/open'), app)
  })
  await testRefusal(t, app, upgradeText('/v1/relay/home'), { statusCode: 401 })
  await openBare(t, app, '/v1/relay/home', { headers: { Authorization: 'yes' } })
  await openBare(t, app, '/open')
  t.same(app.relayHub.channels().map(({ scope }) => scope), ['/v1/relay/:network', '/open'])
})

t.test('works in a child scope alone, and is not there outside', async (t) => {
  const app = Fastify()
  await app.register(async (child) => {
    await child.register(spanzaRelay, { path: '/relay' })
  }, { prefix: '/child' })
  t.notOk(app.hasDecorator('relay'))
  await startListening(t, app)
  await testJoined(t, await openBare(t, app, '/child/relay'), await openBare(t, app, '/child/relay'))
})

t.test('routes defined before the plugin are no concern of it, with @fastify/websocket or without', async (t) => {
  const app = Fastify()
  app.get('/before', async () => 'before')
  await app.register(websocket)
  await app.register(spanzaRelay, { path: '/:anything' })
  await startListening(t, app)
  t.equal((await app.inject('/before')).body, 'before')
  await openBare(t, app, '/relay')
})

t.test('without path, an option of a route or of another plugin is an error', async (t) => {
  for (const options of [{ hosts: ['relay.example.com'] }, { swagger: 7 }]) {
    const [[name, value]] = Object.entries(options) as [[string, unknown]]
    await t.rejects(Promise.resolve(Fastify().register(spanzaRelay, options as object)), {
      code: 'FST_RELAY_OPTION', message: new RegExp(`option ${name} must be .*path.* not .*${[value].flat()[0]}`)
    })
  }
  const app = Fastify()
  await app.register(spanzaRelay, { logLevel: 'warn' } as object)
  await app.close()
})

t.test('injectWS of @fastify/websocket on a relay route is refused as any request that is no upgrade', async (t) => {
  const app = Fastify()
  await app.register(websocket)
  await app.register(spanzaRelay, { path: '/relay' })
  app.get('/echo', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(message)) })
  await app.ready()
  await t.rejects(app.injectWS('/relay'), { message: /426/ })
  const socket = await app.injectWS('/echo')
  t.equal(socket.readyState, socket.OPEN)
  socket.terminate()
  await app.close()
})

t.test('sibling scopes share the hub of their server', async (t) => {
  const app = Fastify()
  for (const prefix of ['/x', '/z']) {
    await app.register(async (scope) => {
      await scope.register(spanzaRelay)
      scope.relay('/relay', { scope: 'shared' })
    }, { prefix })
  }
  await startListening(t, app)
  await testJoined(t, await openBare(t, app, '/x/relay'), await openBare(t, app, '/z/relay'))
  const second = Fastify()
  await second.register(async (scope) => { await scope.register(spanzaRelay, { maxPeers: 7 }) })
  await t.rejects(Promise.resolve(second.register(async (scope) => { await scope.register(spanzaRelay, { maxPeers: 8 }) })),
    { code: 'FST_RELAY_OPTIONS_TWICE' })
})

t.test('an option of the hub has no place on a route', async (t) => {
  const app = Fastify()
  await app.register(spanzaRelay)
  t.throws(() => app.relay('/relay', { maxPacketSize: 9000 } as object), { code: 'FST_RELAY_OPTION', message: /maxPacketSize .* not 9000/ })
  await app.close()
})
