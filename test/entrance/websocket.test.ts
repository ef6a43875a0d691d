import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import type { AddressInfo } from 'node:net'
import websocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { RelayRouteOptions } from '../../lib/index.ts'
import { createGate } from '../helpers/gate.ts'
import { askForUpgrade, refusalsOf, startApp, type AppOptions } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { openWebSocket } from '../helpers/websocket.ts'

const webSocketHeaders = { Upgrade: 'websocket', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version': '13' }

async function start (t: Test, options: WebsocketPluginOptions['options'], route: RelayRouteOptions = {}, appOptions: AppOptions = {}): Promise<FastifyInstance> {
  return await startApp(t, async (app) => {
    if (options !== undefined) await app.register(websocket, { options })
    app.relay('/relay', route)
  }, appOptions)
}

t.test('permessage-deflate', async (t) => {
  const offer = { perMessageDeflate: true }
  const rows: Array<[string, WebsocketPluginOptions['options'], RelayRouteOptions, string]> = [
    ['is not agreed on by itself', undefined, {}, ''],
    ['is where the route says so', undefined, { perMessageDeflate: true }, 'permessage-deflate'],
    ['is not where @fastify/websocket does not say so', {}, { perMessageDeflate: true }, ''],
    ['is where @fastify/websocket says so', { perMessageDeflate: true }, {}, 'permessage-deflate']
  ]
  for (const [what, options, route, extensions] of rows) {
    await t.test(what, async (t) => {
      const app = await start(t, options, route)
      const [from, to] = [await openWebSocket(t, app, '/relay', [], offer), await openWebSocket(t, app, '/relay', [], offer)]
      t.equal(from.extensions, extensions)
      const message = once(to, 'message')
      from.send(Buffer.alloc(2000, 'compressible'))
      t.same(await message, [Buffer.alloc(2000, 'compressible'), true])
    })
  }
})

t.test('over HTTP/2, permessage-deflate is agreed on only where the route says so', async (t) => {
  for (const perMessageDeflate of [false, true]) {
    const app = await start(t, undefined, { perMessageDeflate }, { server: { http2: true } as object })
    const session = connectHttp2(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
    t.teardown(() => session.destroy())
    await once(session, 'remoteSettings')
    const stream = session.request({
      ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/relay', 'sec-websocket-version': '13', 'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits'
    })
    const [headers] = await once(stream, 'response')
    t.equal(headers[':status'], 200)
    t.equal(headers['sec-websocket-extensions'], perMessageDeflate ? 'permessage-deflate' : undefined)
  }
})

t.test('the headers of hooks are in the answer, but for those that belong to the handshake', async (t) => {
  const app = await start(t, undefined, {
    onRequest: async (_request, reply) => { reply.headers({ 'x-hook': ['one', 'two'], 'sec-websocket-accept': 'mine', 'sec-websocket-protocol': 'mine', connection: 'close', 'content-length': 5 }) }
  })
  const { head } = await askForUpgrade(t, app, '/relay', { headers: webSocketHeaders })
  t.equal(head, 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSpanza-Max-Packet: 2048\r\nx-hook: one\r\nx-hook: two\r\n\r\n')
})

t.test('what verifyClient of @fastify/websocket refuses is answered by it, and counted', async (t) => {
  const app = await start(t, { verifyClient: () => false })
  const refusals = refusalsOf(app)
  t.match(await askForUpgrade(t, app, '/relay', { headers: webSocketHeaders }), { statusCode: 401 })
  await until(() => refusals.length > 0)
  t.match(refusals, [{ code: 'FST_RELAY_WEBSOCKET_SERVER' }])
  t.equal(app.relayHub.stats().peers, 0)
})

t.test('a verifyClient that takes its time may lead to a tunnel', async (t) => {
  const { hook, open, reached } = createGate()
  const app = await start(t, { verifyClient: (_info, then) => { hook().then(() => then(true)) } })
  const opening = Promise.all([openWebSocket(t, app, '/relay'), openWebSocket(t, app, '/relay')])
  await reached
  open()
  const [from, to] = await opening
  const message = once(to, 'message')
  from.send(Buffer.from('late'))
  t.same(await message, [Buffer.from('late'), true])
})

t.test('a verifyClient that takes too long ends with handshakeTimeout, and the handshake is counted once', async (t) => {
  const app = await start(t, { verifyClient: (_info, _then) => {} }, {}, { relay: { handshakeTimeout: 50 } })
  const refusals = refusalsOf(app)
  t.match(await askForUpgrade(t, app, '/relay', { headers: webSocketHeaders }), { statusCode: 503 })
  t.match(refusals, [{ code: 'FST_RELAY_HANDSHAKE_TIMEOUT', statusCode: 503 }])
})
