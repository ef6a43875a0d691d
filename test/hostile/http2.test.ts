import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createServer, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { connectStream, openSession, openTunnelOn } from '../helpers/http2-client.ts'
import { createGate } from '../helpers/gate.ts'
import { connectHeaders, encodeFrame, flags, frameTypes, hpack, PREFACE, uint32 } from '../helpers/http2-frames.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { refusalsOf, startApp } from '../helpers/relay-app.ts'
import { detached } from '../helpers/relay.ts'
import { until } from '../helpers/tunnel.ts'

const { DATA, HEADERS, RST_STREAM, SETTINGS } = frameTypes
const { ACK, END_HEADERS } = flags

/** A client that speaks HTTP/2 by hand: what it writes at once comes at once. */
async function dialSession (t: Test, app: FastifyInstance): Promise<RawClient> {
  const client = await RawClient.dial(t, app, { allowHalfOpen: true })
  await client.send(Buffer.concat([PREFACE, encodeFrame(SETTINGS, 0, 0), encodeFrame(SETTINGS, ACK, 0)]))
  return client
}

async function attach (app: FastifyInstance, client: RawClient, stream: number): Promise<void> {
  const attached = once(app.relayHub, 'attach')
  await client.send(encodeFrame(HEADERS, END_HEADERS, stream, hpack(connectHeaders('/relay', 'spanza'))))
  await attached
}

for (const [name, code] of Object.entries({ NO_ERROR: 0, FLOW_CONTROL_ERROR: 3, CANCEL: 8 })) {
  t.test(`a tunnel of a pair that is reset with ${name} while bytes are on their way to it takes only its partner with it`, async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'), { server: { http2: true } as object })
    const client = await dialSession(t, app)
    await attach(app, client, 1)
    await attach(app, client, 3)
    await client.send(Buffer.concat([
      encodeFrame(DATA, 0, 3, 'for the other one'),
      encodeFrame(RST_STREAM, 0, 1, uint32(code))
    ]))
    await until(() => app.relayHub.stats().peers === 0)
    await attach(app, client, 5)
    t.match(app.relayHub.stats(), { peers: 1, detached: { lost: 1, 'partner-lost': 1 } })
  })
}

t.test('an app that closes does not wait for a client that keeps its connection open', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), { server: { http2: true } as object, relay: { closeGrace: 50 } })
  const client = await dialSession(t, app)
  await attach(app, client, 1)
  await app.close()
  t.equal(app.server.listening, false)
})

t.test('a client that resets its stream during the hooks is told as gone', async (t) => {
  const gate = createGate()
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: gate.hook }), { server: { http2: true } as object })
  const refusals = refusalsOf(app)
  const { stream } = connectStream(await openSession(t, app), '/relay')
  await gate.reached
  stream.close(8)
  await until(() => refusals.length === 1)
  t.match(refusals, [{ statusCode: 499, code: 'FST_RELAY_CLIENT_GONE' }])
  gate.open()
})

t.test('an answer that HTTP/2 cannot carry leaves no connection to the target', async (t) => {
  const connections: Socket[] = []
  const target = createServer((socket) => connections.push(socket.on('error', () => {}).resume()))
  target.listen(0, '127.0.0.1')
  await once(target, 'listening')
  t.teardown(() => target.close())
  const app = await startApp(t, (app) => {
    app.setErrorHandler((_error, _request, reply) => reply.removeHeader('age').code(500).send())
    app.relay('/relay', {
      target: `tcp://127.0.0.1:${(target.address() as AddressInfo).port}`,
      onRequest: async (_request, reply) => { reply.header('age', ['1', '2']) }
    })
  }, { server: { http2: true } as object })
  const { statusCode } = await connectStream(await openSession(t, app), '/relay', { protocol: 'spanza' }).answer()
  t.equal(statusCode, 500)
  await until(() => connections.length === 1 && connections[0]!.destroyed)
})

t.test('tunnels on one session count for its client', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:id'), { server: { http2: true } as object, relay: { maxClientPeers: 2 } })
  const session = await openSession(t, app)
  await openTunnelOn(session, '/relay/a')
  await openTunnelOn(session, '/relay/b')
  t.equal((await connectStream(session, '/relay/c').answer()).statusCode, 429)
})

t.test('streams that are reset as soon as they are opened leave nothing behind', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async () => await new Promise((resolve) => setImmediate(resolve)) }), {
    server: { http2: true } as object, relay: { maxUnfinishedHandshakes: 1 }
  })
  const session = await openSession(t, app)
  for (let i = 0; i < 20; i++) connectStream(session, '/relay').stream.close(8)
  session.destroy()
  const after = await openTunnelOn(await openSession(t, app), '/relay')
  t.equal(app.relayHub.stats().peers, 1)
  const gone = detached(app, app.relayHub.peers()[0]!.id)
  after.stream.close(8)
  t.match(await gone, { reason: 'lost' })
})
