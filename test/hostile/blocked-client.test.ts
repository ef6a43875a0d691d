import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { SpanzaRelayOptions } from '../../lib/index.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

function takeNothing (socket: Socket): void {
  Object.assign(socket, { _write () {}, _writev: null })
}

/** An app whose connections take nothing, as when a client has not read what the kernel holds for it already. */
async function startBlocked (t: Test, relay: SpanzaRelayOptions, hook?: () => Promise<void>): Promise<FastifyInstance> {
  return await startApp(t, (app) => {
    app.server.on('connection', takeNothing)
    app.relay('/relay', hook === undefined ? {} : { onRequest: hook })
  }, { relay })
}

t.test('a refusal before routing that the client does not take is given up', async (t) => {
  const app = await startBlocked(t, { handshakeTimeout: 200 })
  const refusals = refusalsOf(app)
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay', { host: false }))
  await client.closed
  await until(() => refusals.length === 1)
})

t.test('the answer of the deadline that the client does not take is given up', async (t) => {
  const app = await startBlocked(t, { handshakeTimeout: 200 }, async () => await new Promise(() => {}))
  const refusals = refusalsOf(app)
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay'))
  await client.closed
  await until(() => refusals.length === 1)
})

t.test('a client that does not take the refusal of an app that closes does not hold it open', async (t) => {
  let isBlocked = false
  const app = await startApp(t, (app) => {
    app.server.on('connection', (socket: Socket) => { if (isBlocked) takeNothing(socket) })
    app.relay('/relay')
  })
  // A peer that keeps its side open, so that the relay is still closing when the next one comes.
  await openBare(t, app, '/relay', {}, { allowHalfOpen: true })
  isBlocked = true
  const late = await RawClient.dial(t, app)
  const closed = app.close()
  await until(() => app.relayHub.isClosing)
  await late.send(upgradeText('/relay'))
  await closed
})

t.test('a refusal that the client does not take does not count as unfinished', async (t) => {
  const app = await startApp(t, (app) => {
    app.server.on('connection', (socket: Socket) => { if (socket.remoteAddress === '127.0.0.1') takeNothing(socket) })
    app.relay('/relay')
    app.relay('/guarded', { onRequest: async (_request, reply) => await reply.code(401).send('no') })
  }, { relay: { maxUnfinishedHandshakes: 1, maxClientUnfinishedHandshakes: 1 } })
  const refusals = refusalsOf(app)
  for (const text of [upgradeText('/relay', { host: false }), upgradeText('/guarded')]) {
    const client = await RawClient.dial(t, app)
    await client.send(text)
  }
  await until(() => refusals.length === 2)
  await openBare(t, app, '/relay', {}, { localAddress: '127.0.0.2' })
  t.match(refusals.map(({ statusCode, code }) => code ?? statusCode).sort(), [401, 'FST_RELAY_HOST_HEADER'])
})
