import type { FastifyInstance, FastifyReply } from 'fastify'
import t, { type Test } from 'tap'
import { createGate } from '../helpers/gate.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { refusalsOf, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

// An upgrade behind a request that has no answer yet.

const BIG = 8 * 1024 * 1024

async function start (t: Test, hook: () => Promise<void>, relay: object = {}): Promise<FastifyInstance> {
  return await startApp(t, (app) => {
    app.relay('/relay')
    app.get('/slow', async () => { await hook(); return 'slow' })
    app.get('/last', async (_request, reply: FastifyReply) => { await hook(); return await reply.header('connection', 'close').send('last') })
    app.get('/big', async (_request, reply: FastifyReply) => {
      await hook()
      const { Readable } = await import('node:stream')
      return await reply.header('content-length', BIG).send(Readable.from(Array.from({ length: 128 }, () => Buffer.alloc(BIG / 128))))
    })
  }, { relay })
}

t.test('the answers to the requests before it are sent, then it is refused, and the connection closes', async (t) => {
  const { hook, open, reached } = createGate()
  const app = await start(t, hook)
  const refusals = refusalsOf(app)
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/slow') + requestText('/slow') + upgradeText('/relay') + 'early')
  await reached
  open()
  for (let i = 0; i < 2; i++) t.match(await client.answer(), { statusCode: 200, body: 'slow' })
  const { statusCode, body, headers } = await client.answer()
  t.match({ statusCode, headers, body: JSON.parse(body) }, { statusCode: 400, headers: { connection: 'close' }, body: { code: 'FST_RELAY_PIPELINED' } })
  await client.closed
  t.equal(client.unread, '')
  t.match(refusals, [{ statusCode: 400, code: 'FST_RELAY_PIPELINED' }])
  t.equal(app.relayHub.stats().attached, 0)
})

t.test('an answer before it that is a long stream is sent to its end', async (t) => {
  const { hook, open, reached } = createGate()
  const app = await start(t, hook)
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/big') + upgradeText('/relay'))
  await reached
  open()
  const { statusCode, body } = await client.answer()
  t.match({ statusCode, length: body.length }, { statusCode: 200, length: BIG })
  t.equal((await client.answer()).statusCode, 400)
})

t.test('an answer before it that ends the connection is the last one', async (t) => {
  const { hook, open, reached } = createGate()
  const app = await start(t, hook)
  const refusals = refusalsOf(app)
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/last') + upgradeText('/relay'))
  await reached
  open()
  t.match(await client.answer(), { statusCode: 200, body: 'last' })
  t.equal(await client.closed, undefined)
  t.equal(client.unread, '')
  t.match(refusals, [{ code: 'FST_RELAY_PIPELINED' }])
})

t.test('connections that wait so are limited in time and number', async (t) => {
  const app = await start(t, async () => await new Promise(() => {}), { handshakeTimeout: 300, maxClientUnfinishedHandshakes: 2 })
  const clients = await Promise.all(Array.from({ length: 4 }, async () => await RawClient.dial(t, app)))
  for (const client of clients) await client.send(requestText('/slow') + upgradeText('/relay'))
  await Promise.all(clients.map(async (client) => await client.closed))
  await until(() => app.relayHub.stats().refused['FST_RELAY_HANDSHAKE_TIMEOUT'] === 2)
  t.same(app.relayHub.stats().refused, { FST_RELAY_CLIENT_UNFINISHED: 2, FST_RELAY_HANDSHAKE_TIMEOUT: 2 })
})
