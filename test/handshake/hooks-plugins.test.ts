import { createRequire } from 'node:module'
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import t, { type Test } from 'tap'
import { connectStream, openSession } from '../helpers/http2-client.ts'
import { lines } from '../helpers/handshake-table.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

// Plugins of Fastify beside relay routes: what their hooks set is on the 101, and in no way that harms the tunnel.

const require = createRequire(import.meta.url)
const plugin = (name: string): FastifyPluginAsync<Record<string, unknown>> => require(`@fastify/${name}`)

interface Case {
  setUp: (app: FastifyInstance) => Promise<void>
  /** What the hook of the route does. */
  hook?: (request: never, reply: never) => void
  /** Headers that the answer must have. */
  headers: Record<string, RegExp>
}

interface Cookies { setCookie: (name: string, value: string) => void }
interface Session { session: { set: (name: string, value: string) => void } }

const cases: Record<string, Case> = {
  '@fastify/cookie': {
    setUp: async (app) => { await app.register(plugin('cookie')) },
    hook: (_request, reply: Cookies) => { reply.setCookie('a', '1'); reply.setCookie('b', '2') },
    headers: { 'set-cookie': /a=1.*b=2/ }
  },
  '@fastify/session': {
    setUp: async (app) => {
      await app.register(plugin('cookie'))
      await app.register(plugin('session'), { secret: 's'.repeat(32), cookie: { secure: false } })
    },
    hook: ({ session }: Session) => { session.set('user', 'a') },
    headers: { 'set-cookie': /^sessionId=/ }
  },
  '@fastify/secure-session': {
    setUp: async (app) => { await app.register(plugin('secure-session'), { key: Buffer.alloc(32, 1) }) },
    hook: ({ session }: Session) => { session.set('user', 'a') },
    headers: { 'set-cookie': /^session=/ }
  },
  '@fastify/helmet': { setUp: async (app) => { await app.register(plugin('helmet')) }, headers: { 'x-content-type-options': /nosniff/ } },
  '@fastify/rate-limit': { setUp: async (app) => { await app.register(plugin('rate-limit'), { max: 1 }) }, headers: { 'x-ratelimit-limit': /^1$/ } },
  '@fastify/under-pressure': { setUp: async (app) => { await app.register(plugin('under-pressure'), { maxEventLoopDelay: 60_000 }) }, headers: {} },
  '@fastify/compress': { setUp: async (app) => { await app.register(plugin('compress'), { threshold: 0 }) }, headers: {} }
}

async function start (t: Test, { setUp, hook }: Case, server: object): Promise<FastifyInstance> {
  return await startApp(t, async (app) => {
    await setUp(app)
    app.relay('/relay', { onRequest: async (request, reply) => { hook?.(request as never, reply as never) } })
  }, { server })
}

/** Tests the headers of an answer, and that none of those that must not be there are. */
function testHeaders (t: Test, headers: Record<string, unknown>, expected: Record<string, RegExp>): void {
  for (const [name, value] of Object.entries(expected)) t.match([headers[name]].flat().join(), value, name)
  for (const name of ['content-length', 'content-type', 'content-encoding', 'transfer-encoding']) t.notOk(name in headers, `no ${name}`)
}

for (const [name, each] of Object.entries(cases)) {
  t.test(name, async (t) => {
    await t.test('over HTTP/1.1', async (t) => {
      const app = await start(t, each, {})
      const client = await RawClient.dial(t, app)
      await client.send(lines('GET /relay HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza', 'Accept-Encoding: gzip'))
      const { statusCode, headers } = await client.head()
      t.equal(statusCode, 101)
      testHeaders(t, headers, each.headers)
      t.equal(client.unread, '', 'nothing comes behind it')
      await until(() => app.relayHub.stats().peers === 1)
    })
    await t.test('over HTTP/2', async (t) => {
      const app = await start(t, each, { http2: true })
      const client = connectStream(await openSession(t, app), '/relay', { protocol: 'spanza', headers: { 'accept-encoding': 'gzip' } })
      const head = await client.head()
      t.equal(head[':status'], 200)
      testHeaders(t, head, each.headers)
    })
  })
}

t.test('@fastify/rate-limit refuses the second', async (t) => {
  const app = await start(t, cases['@fastify/rate-limit']!, {})
  const ask = async (): Promise<number> => {
    const client = await RawClient.dial(t, app)
    await client.send(lines('GET /relay HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza'))
    return (await client.head()).statusCode
  }
  t.equal(await ask(), 101)
  t.equal(await ask(), 429)
})
