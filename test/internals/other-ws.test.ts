import { once } from 'node:events'
import t from 'tap'
import { WebSocket } from 'ws'

// As in a ws that has renamed it. The package looks when it is imported.
Object.assign(WebSocket.prototype, { setSocket: undefined })

const { connectStream, openSession } = await import('../helpers/http2-client.ts')
const { startApp } = await import('../helpers/relay-app.ts')
const { connect, UdpSidecar } = await import('../../lib/client/index.ts')

t.test('with a ws that differs, the relay refuses WebSockets over HTTP/2, and takes other tunnels', async (t) => {
  const app = await startApp(t, (app) => { app.relay('/relay') }, { server: { http2: true } as object })
  const session = await openSession(t, app)
  const { statusCode, body } = await connectStream(session, '/relay').answer()
  t.equal(Number(statusCode), 501)
  t.match(JSON.parse(body), { code: 'FST_RELAY_CONNECT_PROTOCOL', message: 'This relay does not speak "websocket" over HTTP/2, only: spanza' })
  const { ':status': status } = await connectStream(session, '/relay', { protocol: 'spanza' }).head()
  t.equal(Number(status), 200)
})

t.test('with a ws that differs, the client opens no WebSockets, and a sidecar for "auto" speaks spanza', async (t) => {
  await t.rejects(connect('ws://127.0.0.1:9/', { protocol: 'websocket' }), { code: 'FST_RELAY_CLIENT_OPTION', message: /ws as it is in version 8\.23/ })
  const sidecar = new UdpSidecar({ url: 'http://127.0.0.1:9/', protocol: 'auto', listen: '127.0.0.1:0' })
  t.teardown(() => sidecar.close())
  const failed = once(sidecar, 'retry')
  await sidecar.start()
  const [{ text }] = await failed
  t.match(text, /ECONNREFUSED/)
})
