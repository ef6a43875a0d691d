import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import type { RelayRouteOptions } from '../../lib/index.ts'
import { connectStream, openSession } from '../helpers/http2-client.ts'
import { RawClient, upgradeText, type RequestParts } from '../helpers/raw-client.ts'
import { refusalsOf, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

// What a client sends comes back in answers, log lines, events and counters: cut, however long it was.

const LONG = Array.from({ length: 1500 }, (_, i) => `x${i}`).join(', ')
const MOST = 1000

interface Told {
  app: FastifyInstance
  /** What was logged, without the lines that Fastify writes about requests. */
  log: string[]
}

async function start (t: Test, options: RelayRouteOptions, server: FastifyServerOptions = {}): Promise<Told> {
  const log: string[] = []
  const write = (line: string): void => { if (!/"(?:incoming request|request completed)"/.test(line)) log.push(line) }
  const app = await startApp(t, (app) => app.relay('/relay/:network', options), { server: { logger: { stream: { write } }, ...server } })
  log.length = 0
  return { app, log }
}

const key = { Upgrade: 'websocket', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' }
const cases: Record<string, [RequestParts, RelayRouteOptions?]> = {
  'Spanza-Framing': [{ headers: { 'Spanza-Framing': LONG } }],
  Upgrade: [{ headers: { Upgrade: LONG } }],
  'Sec-WebSocket-Protocol': [{ headers: { ...key, 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Protocol': LONG } }],
  'Sec-WebSocket-Version': [{ headers: { ...key, 'Sec-WebSocket-Version': LONG } }],
  Origin: [{ headers: { ...key, 'Sec-WebSocket-Version': '13', Origin: LONG } }],
  'Origin and Host': [{ host: 'h'.repeat(5000), headers: { ...key, 'Sec-WebSocket-Version': '13', Origin: LONG } }],
  Host: [{ host: 'h'.repeat(5000) }, { hosts: ['relay.example.com'] }],
  'X-Forwarded-For': [{ headers: { 'X-Forwarded-For': 'x'.repeat(5000) } }],
  'a message of a hook': [{ headers: { 'X-Name': LONG } }, { onRequest: async ({ headers }) => { throw Object.assign(new Error(`no ${headers['x-name']}`), { statusCode: 403, code: String(headers['x-name']) }) } }]
}

t.test('a long value is cut:', async (t) => {
  for (const [what, [parts, options = {}]] of Object.entries(cases)) {
    await t.test(what, async (t) => {
      const { app, log } = await start(t, options, { trustProxy: true })
      const refusals = refusalsOf(app)
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay/home', parts))
      const { statusCode, body } = await client.answer()
      t.not(statusCode, 101)
      // What a hook of the app throws is the app's to say.
      if (what !== 'a message of a hook') t.ok(body.length < MOST, 'in the answer')
      await until(() => log.some((line) => line.includes('relay handshake refused')))
      const lines = log.filter((line) => what !== 'a message of a hook' || line.includes('relay handshake refused'))
      t.ok(lines.every((line) => line.length < 2 * MOST), 'in the log')
      t.ok(JSON.stringify(refusals).length < MOST, 'in the event')
      t.ok(JSON.stringify(app.relayHub.stats().refused).length < MOST, 'in the counters')
    })
  }

  await t.test(':protocol', async (t) => {
    const { app } = await start(t, {}, { http2: true } as object)
    const refusals = refusalsOf(app)
    const client = connectStream(await openSession(t, app), '/relay/home', { protocol: 'x'.repeat(5000) })
    t.ok((await client.answer()).body.length < MOST)
    await until(() => refusals.length === 1)
    t.ok(JSON.stringify(refusals).length < MOST)
  })

  await t.test('a parameter of the path', async (t) => {
    const { app, log } = await start(t, { identify: () => { throw Object.assign(new Error('no'), { statusCode: 403 }) } })
    const refusals = refusalsOf(app)
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText(`/relay/${'x'.repeat(90)}`))
    await client.answer()
    await until(() => refusals.length === 1)
    t.match(refusals, [{ path: '/relay/:network' }])
    t.notOk(log.some((line) => line.includes('xxx') && line.includes('relay handshake refused')))
  })

  await t.test('the id of a request that the client has chosen', async (t) => {
    const { app, log } = await start(t, {}, { requestIdHeader: 'x-id' })
    const client = await RawClient.dial(t, app)
    await client.upgrade(t, '/relay/home', { headers: { 'X-Id': 'i'.repeat(5000) } })
    await until(() => log.some((line) => line.includes('relay peer attached')))
    t.ok(log.find((line) => line.includes('relay peer attached'))!.length < MOST)
  })
})
