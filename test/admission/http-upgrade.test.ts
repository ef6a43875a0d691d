import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import spanzaRelay from '../../lib/index.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { openBare, startApp, startListening, testJoined } from '../helpers/relay-app.ts'
import { openTunnel } from '../helpers/tunnel.ts'

// The HTTPUpgrade transport of Xray and sing-box: `Upgrade: websocket` without a key, and a bare stream behind the 101.

const keyless = { headers: { Upgrade: 'websocket' } }

/** A server that speaks first, as SSH does. */
async function serverFirst (t: Test, greeting: string | Buffer): Promise<string> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.write(greeting)
    socket.on('data', (chunk) => socket.write(chunk))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`
}

t.test('the answer is as those clients demand it', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', {
    onRequest: async (_request, reply) => { reply.header('X-Custom', 'kept') }
  }))
  const client = await RawClient.dial(t, app)
  const { head } = await client.upgrade(t, '/relay', keyless)
  t.equal(head, 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nx-custom: kept\r\n\r\n')
})

t.test('two of them, or one and a bare tunnel, are joined', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  for (const [i, parts] of [keyless, {}].entries()) {
    const a = await openBare(t, app, `/relay/${i}`, parts)
    await testJoined(t, a, await openBare(t, app, `/relay/${i}`, keyless))
  }
})

t.test('early data arrives', async (t) => {
  const target = await serverFirst(t, '')
  const app = await startApp(t, (app) => app.relay('/relay', { target, onRequest: async () => await new Promise((resolve) => setTimeout(resolve, 20)) }))
  const client = await RawClient.dial(t, app)
  const early = Buffer.alloc(100_000, 'early')
  await client.send(Buffer.concat([Buffer.from('GET /relay HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n'), early]))
  t.equal((await client.head()).statusCode, 101)
  t.ok((await client.read(early.length)).equals(early))
})

t.test('what comes for it waits until it has spoken', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  const a = await openBare(t, app, '/relay/x')
  await a.send('waits')
  const b = await RawClient.dial(t, app)
  const chunks: string[] = []
  b.socket.on('data', (chunk) => chunks.push(String(chunk)))
  await b.upgrade(t, '/relay/x', keyless)
  t.equal(chunks.length, 1, 'the 101 comes alone')
  t.match(app.relayHub.peers().map(({ bytesOut }) => bytesOut), [0, 0])
  await b.send('first byte')
  t.equal(String(await a.read(10)), 'first byte')
  t.equal(String(await b.read(5)), 'waits')
})

t.test('a server that speaks first is heard in the end, however long the client is silent', async (t) => {
  const target = await serverFirst(t, 'SSH-2.0-test\r\n')
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const client = await openBare(t, app, '/relay', keyless)
  t.equal(client.unread, '', 'nothing comes with the 101')
  t.equal(String(await client.read(14)), 'SSH-2.0-test\r\n')
  await client.send('echo')
  t.equal(String(await client.read(4)), 'echo')
})

t.test('while a client is silent its target is not read', async (t) => {
  const greeting = Buffer.alloc(32 * 1024 * 1024, 'x')
  const target = await serverFirst(t, greeting)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const client = await openBare(t, app, '/relay', keyless)
  t.equal(app.relayHub.peers()[0]!.bytesOut, 0)
  t.ok((await client.read(greeting.length)).equals(greeting))
})

t.test('one that leaves while bytes wait for it leaves nothing behind', async (t) => {
  const target = await serverFirst(t, 'hello')
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  for (const leave of ['resetAndDestroy', 'end'] as const) {
    const left = once(app.relayHub, 'detach')
    const client = await openBare(t, app, '/relay', keyless)
    client.socket[leave]()
    await left
  }
  t.equal(app.relayHub.stats().peers, 0)
})

t.test('a client that asks for a framing gets it, and nothing is held back', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:name'))
  const client = await RawClient.dial(t, app)
  const { headers } = await client.upgrade(t, '/relay/x', { headers: { Upgrade: 'websocket', 'Spanza-Framing': 'len16' } })
  t.equal(headers['spanza-framing'], 'len16')
  const other = await openTunnel(t, app, { path: '/relay/x' })
  other.send(Buffer.from('datagram'))
  t.equal(String(await client.read(10)), '\0\x08datagram')
})

t.test('real WebSockets of the same app go on beside it', async (t) => {
  for (const order of ['before', 'after']) {
    const app = Fastify() as FastifyInstance
    if (order === 'before') await app.register(websocket)
    await app.register(spanzaRelay, { path: '/relay/:name' })
    if (order === 'after') await app.register(websocket)
    app.get('/ws', { websocket: true }, (socket) => { socket.on('message', (data) => socket.send(String(data))) })
    await startListening(t, app)
    const a = await openBare(t, app, '/relay/x', keyless)
    await testJoined(t, a, await openBare(t, app, '/relay/x', keyless))
    const socket = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/ws`)
    await once(socket, 'open')
    socket.send('hello')
    t.equal(String((await once(socket, 'message'))[0]), 'hello', order)
    socket.close()
    await once(socket, 'close')
  }
})
