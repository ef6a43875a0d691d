import { cpSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import websocket from '@fastify/websocket'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { echo, testTunnels } from '../helpers/coexistence.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startListening, testJoined, testRefusal } from '../helpers/relay-app.ts'

// Two copies of the package in one process, as npm installs them where two dependants ask for versions that differ.

type Plugin = typeof spanzaRelay

async function importCopy (t: Test): Promise<Plugin> {
  const directory = join(t.testdir({}), 'lib')
  cpSync(fileURLToPath(new URL('../../lib', import.meta.url)), directory, { recursive: true })
  const { default: copy } = await import(pathToFileURL(join(directory, 'index.ts')).href) as { default: Plugin }
  t.not(copy, spanzaRelay)
  return copy
}

t.test('two copies of the package', async (t) => {
  const copy = await importCopy(t)
  const plugins: Array<[string, Plugin]> = [['a', spanzaRelay], ['b', copy]]

  await t.test('in sibling scopes of one app serve a route each, with a hub each', async (t) => {
    for (const sequence of [plugins, [...plugins].reverse()]) {
      await t.test(`${sequence.map(([name]) => name).join(', ')}`, async (t) => {
        const app = Fastify()
        const scopes: Record<string, FastifyInstance> = {}
        for (const [prefix, plugin] of sequence) {
          await app.register(async (scope) => {
            await scope.register(plugin)
            scope.relay('/relay/:channel')
            scopes[prefix] = scope
          }, { prefix: `/${prefix}` })
        }
        app.get('/rest', async () => 'rest')
        await startListening(t, app)
        for (let i = 0; i < 2; i++) {
          await testTunnels(t, app, '/a')
          await testTunnels(t, app, '/b')
        }
        t.not(scopes['a']!.relayHub, scopes['b']!.relayHub)
        for (const [name, scope] of Object.entries(scopes)) {
          t.equal(scope.relayHub.stats().attached, 4)
          await testRefusal(t, scope, upgradeText(`/${name}/relay/x`, { headers: { Upgrade: 'h2c' } }), { statusCode: 400, code: 'FST_RELAY_PROTOCOL' })
        }
        t.match(scopes['a']!.relayHub.stats().refused, { FST_RELAY_PROTOCOL: 1 }, 'each has counted its own')
        const client = await RawClient.dial(t, app)
        await client.send(requestText('/rest', { headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }))
        t.equal((await client.answer()).body, 'rest')
        const open = [await openBare(t, app, '/a/relay/x'), await openBare(t, app, '/b/relay/x')]
        await app.close()
        await Promise.all(open.map(async ({ closed }) => await closed))
        t.equal(app.server.listenerCount('upgrade'), 0)
      })
    }
  })

  await t.test('with @fastify/websocket between them', async (t) => {
    const app = Fastify()
    await app.register(async (scope) => { await scope.register(spanzaRelay, { path: '/a/relay/:channel' }) })
    await app.register(websocket)
    await app.register(async (scope) => {
      scope.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(String(message))) })
      await scope.register(copy, { path: '/b/relay/:channel' })
    })
    await startListening(t, app)
    for (let i = 0; i < 2; i++) {
      await testTunnels(t, app, '/a')
      t.equal(await echo(app, '/ws'), 'hello')
      await testTunnels(t, app, '/b')
    }
  })

  await t.test('in two apps: closing one leaves the other', async (t) => {
    const apps: FastifyInstance[] = []
    for (const [, plugin] of plugins) {
      const app = Fastify()
      await app.register(plugin, { path: '/relay/:channel' })
      apps.push(await startListening(t, app))
    }
    const [first, second] = apps as [FastifyInstance, FastifyInstance]
    const [a, b] = [await openBare(t, second, '/relay/stays'), await openBare(t, second, '/relay/stays')]
    await testTunnels(t, first)
    await first.close()
    await testJoined(t, a, b)
    await testTunnels(t, second)
  })

  await t.test('in two apps on one server: closing one leaves the other\'s tunnels, and its claims', async (t) => {
    const server = createServer()
    const close = server.close.bind(server)
    // The server is the test's, not one app's.
    server.close = (done) => { done?.(); return server }
    const apps: FastifyInstance[] = []
    for (const [name, plugin] of plugins) {
      const app = Fastify({ serverFactory: (handler) => server.on('request', (request, response) => { if (request.url!.startsWith(`/${name}/`)) handler(request, response) }) })
      await app.register(plugin, { path: `/${name}/relay/:channel` })
      await app.ready()
      apps.push(app)
    }
    server.listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    t.teardown(() => close())
    const [first, second] = apps as [FastifyInstance, FastifyInstance]
    await testTunnels(t, first, '/a')
    const [a, b] = [await openBare(t, second, '/b/relay/stays'), await openBare(t, second, '/b/relay/stays')]
    await first.close()
    await testJoined(t, a, b)
    await testTunnels(t, second, '/b')
    await second.close()
    t.equal(server.listenerCount('upgrade'), 0)
    t.notOk(Object.hasOwn(server, 'emit'))
  })
})
