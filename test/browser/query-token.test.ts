import { once } from 'node:events'
import { connect } from 'node:http2'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { Writable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { http2Options, startExample, tokens } from './example-app.ts'

// The token of a browser, which cannot give a WebSocket headers, in the example app.

/** The status that a WebSocket's handshake is answered with; 101 for one that is open until the test ends. */
async function statusOf (t: Test, app: FastifyInstance, path: string, headers: Record<string, string> = {}): Promise<number> {
  const webSocket = new WebSocket(`${app.listeningOrigin.replace('http', 'ws')}${path}`, 'spanza.v1', { headers })
  t.teardown(() => webSocket.terminate())
  return await new Promise((resolve, reject) => {
    webSocket.on('open', () => resolve(101))
    webSocket.on('unexpected-response', (_request, response: IncomingMessage) => {
      resolve(response.statusCode!)
      webSocket.terminate()
    })
    webSocket.on('error', reject)
  })
}

/** The same over HTTP/2. */
async function http2StatusOf (t: Test, app: FastifyInstance, path: string): Promise<number> {
  const session = connect(app.listeningOrigin, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  await once(session, 'remoteSettings')
  const stream = session.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':path': path, 'sec-websocket-version': '13', 'sec-websocket-protocol': 'spanza.v1'
  }, { endStream: false })
  stream.on('error', () => {})
  stream.resume()
  const [headers] = await once(stream, 'response')
  return headers[':status']
}

t.test('on a relay route, the token may come in the query', async (t) => {
  const app = await startExample(t)
  t.equal(await statusOf(t, app, `/relay/home?token=${tokens.alice}`), 101)
  t.match(app.relayHub.peers(), [{ id: 'alice', httpVersion: '1.1' }])
  t.equal(await statusOf(t, app, '/relay/home?token=wrong'), 401)
  t.equal(await statusOf(t, app, '/relay/home'), 401)
  t.equal(await statusOf(t, app, `/relay/home?token=${tokens.alice}&token=${tokens.alice}`), 401, 'once')
  t.equal(await statusOf(t, app, `/relay/home?token=${tokens.alice}`, { authorization: 'Bearer wrong' }), 401, 'a header comes first')
  t.equal(await statusOf(t, app, `/relay/office?token=${tokens.alice}`), 403, 'and identify decides as ever')
})

t.test('so it may over HTTP/2', async (t) => {
  const app = await startExample(t, { server: http2Options() })
  t.equal(await http2StatusOf(t, app, `/relay/home?token=${tokens.alice}`), 200)
  t.match(app.relayHub.peers(), [{ id: 'alice', httpVersion: '2.0' }])
  t.equal(await http2StatusOf(t, app, '/relay/home?token=wrong'), 401)
})

t.test('on other routes it may not', async (t) => {
  const app = await startExample(t)
  for (const path of ['/api/whoami', '/api/peers']) {
    t.equal((await app.inject(`${path}?token=${tokens.alice}`)).statusCode, 401, path)
    t.equal((await app.inject({ url: path, headers: { authorization: `Bearer ${tokens.alice}` } })).statusCode, 200, path)
  }
})

for (const [version, server] of [['HTTP/1.1', {}], ['HTTP/2', http2Options()]] as const) {
  t.test(`over ${version}, no line of the log has a token in it`, async (t) => {
    const lines: string[] = []
    const stream = new Writable({ decodeStrings: false, write: (line, _encoding, done) => { lines.push(line); done() } })
    const app = await startExample(t, { server: { ...server, logger: { level: 'trace', stream } } })
    const ask = async (path: string): Promise<number> => version === 'HTTP/2' ? await http2StatusOf(t, app, path) : await statusOf(t, app, path)
    const opened = version === 'HTTP/2' ? 200 : 101
    const secret = 'token-of-nobody'
    t.equal(await ask(`/relay/home?token=${tokens.alice}`), opened)
    t.equal(await ask(`/relay/home?token=${secret}`), 401)
    t.equal(await ask(`/relay/office?token=${tokens.alice}`), 403)
    t.equal(await ask(`/relay/home?a=1&token=${tokens.alice}&token=${secret}`), 401)
    t.equal(await ask(`/nowhere/home?token=${tokens.alice}`), 404)
    if (version === 'HTTP/1.1') {
      t.equal(await plainStatusOf(app, `/relay/home?token=${tokens.alice}`), 426)
      t.equal(await plainStatusOf(app, `/nowhere?token=${tokens.alice}`), 404)
      t.equal(await plainStatusOf(app, `/relay/%zz?token=${tokens.alice}`), 400)
      t.equal(await plainStatusOf(app, `/nowhere#?token=${tokens.alice}`), 404)
      t.equal(await ask(`/api/health?token=${tokens.alice}`), 101, 'which @fastify/websocket closes, and logs')
    }
    app.relayHub.disconnect({ channel: 'home', id: 'alice' })
    await app.close()
    const log = lines.join('')
    for (const expected of ['"incoming request"', '"url":"/relay/home"', '"url":"/nowhere/home"', '"path":"/relay/:network"', '"peer":"alice"', 'request completed']) {
      t.ok(log.includes(expected), `the log has ${expected}`)
    }
    t.same(lines.filter((line) => line.includes(tokens.alice) || line.includes(secret)), [])
  })
}

/** The status that a request without an upgrade is answered with. */
async function plainStatusOf (app: FastifyInstance, path: string): Promise<number> {
  const { hostname, port } = new URL(app.listeningOrigin)
  const [response] = await once(httpRequest({ hostname, port, path }).end(), 'response') as [IncomingMessage]
  response.resume()
  return response.statusCode!
}
