import { EventEmitter } from 'node:events'
import type { Server } from 'node:http'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { watchParsers } from '../../lib/internals/parser-upgrade.ts'
import { RawClient, requestText, type RequestParts } from '../helpers/raw-client.ts'
import { openBare, serverCertificate, startApp, startListening, testJoined } from '../helpers/relay-app.ts'

// Node before 22.21 and 24.9 needs help with these; on the others they must come out the same.

const h2c = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQCAAAAAAIAAAAA' }
const BODY = JSON.stringify({ text: 'x'.repeat(100_000) })
const CHUNKED = [BODY.slice(0, 10), BODY.slice(10)].map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('') + '0\r\n\r\n'

function addRestRoutes (app: FastifyInstance): void {
  app.get('/rest', async (request) => ({ upgrade: request.headers.upgrade }))
  app.route({
    method: ['POST', 'PUT'],
    url: '/rest',
    handler: async (request) => ({ length: (request.body as { text: string }).text.length })
  })
  app.post('/relay', async (request) => ({ length: (request.body as { text: string }).text.length }))
  app.delete('/relay', async () => ({ deleted: true }))
}

const json = { 'Content-Type': 'application/json' }
const requests: Record<string, [string, RequestParts]> = {
  'a GET that offers h2c': ['/rest', { headers: h2c }],
  'a GET that asks for a WebSocket': ['/rest', { headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Version': '13' } }],
  'a GET that asks for our own protocol': ['/rest', { headers: { Connection: 'Upgrade', Upgrade: 'spanza' } }],
  'a HEAD': ['/rest', { method: 'HEAD', headers: h2c }],
  'a GET to a route that is not there': ['/nowhere', { headers: h2c }],
  'a GET to a URL that is none': ['/relay/%zz', { headers: h2c }],
  'a POST with Content-Length': ['/rest', { method: 'POST', headers: { ...h2c, ...json, 'Content-Length': String(BODY.length) }, body: BODY }],
  'a POST with a chunked body': ['/rest', { method: 'POST', headers: { ...h2c, ...json, 'Transfer-Encoding': 'chunked' }, body: CHUNKED }],
  'a PUT with Content-Length': ['/rest', { method: 'PUT', headers: { ...h2c, ...json, 'Content-Length': String(BODY.length) }, body: BODY }],
  'a POST to the path of a relay route': ['/relay', { method: 'POST', headers: { ...h2c, ...json, 'Content-Length': String(BODY.length) }, body: BODY }],
  'a DELETE to the path of a relay route': ['/relay', { method: 'DELETE', headers: { ...h2c, Upgrade: 'spanza' } }]
}

/** Sends the request and, on the same connection, the one after it; the answers, without what changes every time. */
async function askTwice (t: Test, app: FastifyInstance, tls: boolean, [path, parts]: [string, RequestParts]): Promise<unknown> {
  const client = await RawClient.dial(t, app, { tls })
  await client.send(requestText(path, parts))
  const answer = parts.method === 'HEAD' ? await client.head() : await client.answer()
  await client.send(requestText('/rest'))
  const next = await client.answer()
  client.socket.destroy()
  return [answer, next].map(({ head, body }) => [head.replace(/^date: .*$/im, ''), body])
}

for (const tls of [false, true]) {
  t.test(`what no relay route claims is answered as without the plugin, over ${tls ? 'https' : 'http'}`, async (t) => {
    const server: FastifyServerOptions = tls ? { https: serverCertificate() } as FastifyServerOptions : {}
    const app = await startApp(t, (app) => {
      app.relay('/relay')
      app.relay('/relay/:network')
      addRestRoutes(app)
    }, { server })
    const without = Fastify(server)
    addRestRoutes(without)
    await startListening(t, without)

    for (const [what, request] of Object.entries(requests)) {
      await t.test(what, async (t) => {
        t.same(await askTwice(t, app, tls, request), await askTwice(t, without, tls, request))
      })
    }

    await t.test('and the same connection can become a tunnel afterwards', async (t) => {
      const client = await RawClient.dial(t, app, { tls })
      await client.send(requestText(...requests['a POST with a chunked body']!))
      t.same(JSON.parse((await client.answer()).body), { length: 100_000 })
      await client.upgrade(t, '/relay')
      await testJoined(t, client, await openBare(t, app, '/relay', {}, { tls }))
    })
  })
}

t.test('a connection without the parser that is expected is left alone', (t) => {
  const server = new EventEmitter()
  const unwatch = watchParsers(server as Server, () => false)
  for (const socket of [{}, { parser: null }, { parser: {} }, { parser: { onIncoming: null } }]) {
    const before = structuredClone(socket)
    t.ok(server.emit('connection', socket))
    t.ok(server.emit('secureConnection', socket))
    t.same(socket, before)
  }
  unwatch()
  t.notOk(server.emit('connection', {}), 'nobody listens any more')
  t.notOk(server.emit('secureConnection', {}), 'nobody listens any more')
  t.end()
})
