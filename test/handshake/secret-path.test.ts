import { timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Registry } from 'prom-client'
import t, { type Test } from 'tap'
import { relayMetrics } from '../../lib/metrics/index.ts'
import { RawClient, upgradeText, type Answer } from '../helpers/raw-client.ts'
import { refusalsOf, startApp } from '../helpers/relay-app.ts'
import { detached } from '../helpers/relay.ts'

// The recipe of docs/hooks.md for clients that can send a secret in the path only, as ProxyGuard's.

const SECRET = 'correct-horse-battery-staple'

/** Everything that could tell the secret. */
interface Traces {
  app: FastifyInstance
  log: string[]
  told: unknown[]
}

async function start (t: Test): Promise<Traces> {
  const log: string[] = []
  const expected = Buffer.from(SECRET)
  const app = await startApp(t, (app) => {
    app.relay('/wireguard/:secret', {
      scope: 'wireguard',
      onRequest: async (request) => {
        const given = Buffer.from(request.params.secret)
        if (given.length !== expected.length || !timingSafeEqual(given, expected)) throw Object.assign(new Error('not found'), { statusCode: 404 })
      },
      identify: () => ({ channel: 'proxyguard' })
    } satisfies Parameters<typeof app.relay<{ Params: { secret: string } }>>[1])
  }, {
    server: {
      logger: {
        stream: { write: (line: string) => { log.push(line) } },
        serializers: { req: ({ method, routeOptions }: FastifyRequest) => ({ method, url: routeOptions.url ?? 'no route' }) }
      }
    }
  })
  const told: unknown[] = refusalsOf(app)
  app.relayHub.on('attach', (peer) => { told.push(peer) })
  return { app, log, told }
}

async function ask (t: Test, app: FastifyInstance, parts: Parameters<typeof upgradeText>[1], path = `/wireguard/${SECRET}`): Promise<[Answer, RawClient]> {
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText(path, parts))
  return [await client.head(), client]
}

/** Tests that nothing tells it. */
async function testSilent (t: Test, { app, log, told }: Traces): Promise<void> {
  const register = new Registry()
  relayMetrics(app.relayHub, register)
  for (const [what, text] of Object.entries({
    'the log': log.join(''),
    events: JSON.stringify(told),
    peers: JSON.stringify([app.relayHub.peers(), app.relayHub.channels(), app.relayHub.stats()]),
    metrics: await register.metrics()
  })) t.notMatch(text, SECRET, what)
}

t.test('a secret in the path', async (t) => {
  await t.test('opens a tunnel, and stands nowhere', async (t) => {
    const traces = await start(t)
    const [{ statusCode }, client] = await ask(t, traces.app, { headers: { Upgrade: 'UoTLV/1' } })
    t.equal(statusCode, 101)
    await testSilent(t, traces)
    t.match(traces.app.relayHub.channels(), [{ scope: 'wireguard', name: 'proxyguard' }])
    const gone = detached(traces.app, traces.app.relayHub.peers()[0]!.id)
    client.socket.destroy()
    await gone
    await testSilent(t, traces)
  })

  const refused: Record<string, Parameters<typeof upgradeText>[1]> = {
    'by the route': { headers: { Upgrade: 'h2c' } },
    'by a framing': { headers: { 'Spanza-Framing': 'none' } },
    'before routing': { headers: { 'Content-Length': '1' } }
  }
  for (const [what, parts] of Object.entries(refused)) {
    await t.test(`is not told where the tunnel is refused ${what}`, async (t) => {
      const traces = await start(t)
      const [{ statusCode }, client] = await ask(t, traces.app, parts)
      t.equal(statusCode, 400)
      await client.closed
      t.match(traces.told, [{ path: '/wireguard/:secret' }])
      await testSilent(t, traces)
    })
  }

  await t.test('that is wrong opens nothing', async (t) => {
    const { app } = await start(t)
    const [{ statusCode }] = await ask(t, app, {}, '/wireguard/guess')
    t.equal(statusCode, 404)
  })
})
