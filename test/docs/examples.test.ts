import { readFileSync } from 'node:fs'
import { timingSafeEqual } from 'node:crypto'
import basicAuth from '@fastify/basic-auth'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { Registry } from 'prom-client'
import t from 'tap'
import relayAdmin from '../../lib/admin/index.ts'
import spanzaRelay from '../../lib/index.ts'
import { relayMetrics } from '../../lib/metrics/index.ts'
import { exampleIn, namesIn, readPage, runExample, tablesOf } from '../helpers/markdown.ts'
import { askForUpgrade, startApp, startListening } from '../helpers/relay-app.ts'
import { openTunnel } from '../helpers/tunnel.ts'
import { udpPeer } from '../helpers/udp-peer.ts'
import { openWebSocket } from '../helpers/websocket.ts'

// The examples of the pages that make an app, or a part of one, run as they stand there.

const authenticate = async ({ headers }: { headers: { authorization?: string } }): Promise<void> => {
  if (headers.authorization !== 'Bearer good') throw Object.assign(new Error('unknown token'), { statusCode: 401 })
}
const good = { headers: { Authorization: 'Bearer good' } }

t.test('a secret in the path, in docs/hooks.md', async (t) => {
  const log: string[] = []
  let app!: FastifyInstance
  const createApp = ({ logger, ...options }: FastifyServerOptions): FastifyInstance => {
    app = Fastify({ ...options, logger: { ...logger as object, stream: { write: (line: string) => { log.push(line) } } } }) as FastifyInstance
    return app
  }
  process.env['PROXYGUARD_SECRET'] = 'correct-horse'
  await runExample(exampleIn(readPage('docs/hooks.md'), 'secret'), { Fastify: createApp, spanzaRelay, timingSafeEqual })
  await startListening(t, app)
  const upgrade = { headers: { Upgrade: 'UoTLV/1' } }
  t.equal((await askForUpgrade(t, app, '/wireguard/correct-horse', upgrade)).statusCode, 101)
  t.equal((await askForUpgrade(t, app, '/wireguard/wrong-secret1', upgrade)).statusCode, 404)
  t.match(app.relayHub.channels(), [{ scope: 'wireguard', name: 'proxyguard', kind: 'target' }])
  t.notMatch(log.join(''), /correct-horse|wrong-secret1/)
})

t.test('routes with targets, in docs/targets.md', async (t) => {
  const page = readPage('docs/targets.md')
  const server = await udpPeer(t)
  const app = await startApp(t, async (app) => {
    const serverOf = async (): Promise<string> => `udp://${server.address}`
    await runExample(exampleIn(page, 'targets'), { app, authenticate, serverOf })
  })
  const framed = { headers: { ...good.headers, 'Spanza-Framing': 'wg' } }
  t.equal((await askForUpgrade(t, app, '/wireguard', framed)).statusCode, 101)
  t.equal((await askForUpgrade(t, app, '/wireguard', good)).statusCode, 400, 'a bare stream to a UDP target')
  t.equal((await askForUpgrade(t, app, '/app', good)).statusCode, 502, 'there is no such socket here')
  t.equal((await askForUpgrade(t, app, '/mine', framed)).statusCode, 101)
  t.equal((await askForUpgrade(t, app, '/ssh')).statusCode, 401)

  const chosen = await startApp(t, async (app) => await runExample(exampleIn(page, 'chosen'), { app, authenticate }))
  t.equal((await askForUpgrade(t, chosen, '/ssh/other', good)).statusCode, 404)
})

t.test('a token in a query, in docs/websockets.md', async (t) => {
  const app = await startApp(t, async (app) => await runExample(exampleIn(readPage('docs/websockets.md'), 'token'), { app, authenticate }))
  await openWebSocket(t, app, '/relay/home?token=good', ['spanza.v1'])
  await t.rejects(openWebSocket(t, app, '/relay/home?token=bad', ['spanza.v1']), /401/)
})

t.test('disconnect, in docs/operating.md', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:network', { identify: () => ({ id: 'laptop' }) }))
  const tunnel = await openTunnel(t, app, { path: '/relay/home' })
  await runExample(exampleIn(readPage('docs/operating.md'), 'disconnect'), { app })
  await tunnel.closed
  t.equal(app.relayHub.stats().detached['disconnected'], 1)
})

t.test('a scrape, and the spans, in docs/metrics.md', async (t) => {
  const page = readPage('docs/metrics.md')
  const app = await startApp(t, async (app) => {
    const register = new Registry()
    await app.register(basicAuth, { validate: async () => {} })
    app.relay('/relay')
    await runExample(exampleIn(page, 'metrics'), { app, register, relayMetrics })
  })
  t.equal((await app.inject('/metrics')).statusCode, 401)
  const { body } = await app.inject({ url: '/metrics', headers: { authorization: 'Basic YTpi' } })
  t.match(body, /^spanza_relay_channels 0$/m)
  // test/server/diagnostics.test.ts runs that file.
  t.equal(exampleIn(page, 'spans'), readFileSync(new URL('../server/tunnel-spans.js', import.meta.url), 'utf8'))
})

t.test('the scope for operators, its options and its routes, in docs/admin.md', async (t) => {
  const page = readPage('docs/admin.md')
  const routes: string[] = []
  const app = await startApp(t, async (app) => {
    app.addHook('onRoute', ({ method, url }) => {
      if (method !== 'HEAD') routes.push(`${[method].flat().join()} ${url}`)
    })
    await runExample(exampleIn(page, 'admin'), { app, basicAuth, relayAdmin, validate: async () => {} })
  })
  t.equal((await app.inject('/relay-admin/stats')).statusCode, 401)
  t.equal((await app.inject({ url: '/relay-admin/', headers: { authorization: 'Basic YTpi' } })).statusCode, 200)
  const documented = tablesOf(page, 'route', 'what it is').flat().flatMap(([route]) => namesIn(route!)).map((route) => route.replace(' ', ' /relay-admin/'))
  const json = routes.filter((route) => /\/relay-admin\/[a-z]+$/.test(route))
  t.same(documented.sort(), json.sort())
  for (const [route, parameters] of tablesOf(page, 'route', 'parameters').flat()) {
    t.ok(documented.includes(namesIn(route!)[0]!.replace(' ', ' /relay-admin/')), route!)
    t.ok(parameters)
  }
})
