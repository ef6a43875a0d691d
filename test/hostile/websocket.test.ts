import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import websocket, { type WebsocketPluginOptions } from '@fastify/websocket'
import t from 'tap'
import * as ws from 'ws'
import { WebSocket } from 'ws'
import { openSession, openTunnelOn } from '../helpers/http2-client.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { askForUpgrade, refusalsOf, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { openWebSocket } from '../helpers/websocket.ts'

const { PerMessageDeflate } = ws as unknown as { PerMessageDeflate: new (options: object) => { accept: (offers: object[]) => void } }

const openingHandshake = upgradeText('/relay', {
  headers: { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
})
/** A binary message without a mask, which no client may send. */
const brokenFrame = Buffer.from([0x82, 1, 0])

t.test('a broken frame behind the Close frame that says that there is no room any more does no harm', async (t) => {
  const verified: Array<() => void> = []
  const app = await startApp(t, async (app) => {
    await app.register(websocket, { options: { verifyClient: (_info, answer) => { verified.push(() => answer(true)) } } })
    app.relay('/relay')
  }, { relay: { maxPeers: 1 } })
  const first = await RawClient.dial(t, app)
  await first.send(openingHandshake)
  await until(() => verified.length === 1)
  const second = await RawClient.dial(t, app)
  await second.send(openingHandshake)
  await until(() => verified.length === 2)
  for (const goOn of verified) goOn()
  t.match(await second.head(), { statusCode: 101 })
  const [opcode, length] = await second.read(2)
  t.equal(opcode, 0x88, 'a Close frame')
  t.equal((await second.read(length!)).readUInt16BE(), 1013)
  await second.send(brokenFrame)
  await second.closed
  t.equal(app.relayHub.stats().peers, 1)
})

async function sumOf (socket: WebSocket, length: number): Promise<string> {
  const hash = createHash('sha256')
  let received = 0
  return await new Promise((resolve) => {
    socket.on('message', (message: Buffer) => {
      hash.update(message)
      received += message.length
      if (received >= length) resolve(hash.digest('hex'))
    })
  })
}

t.test('a stream flows into the one that is read, while the other way is blocked', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  const open = async (): Promise<WebSocket> => await openWebSocket(t, app, '/relay', ['spanza.raw.v1'])
  const [reader, blocked] = [await open(), await open()]
  const bytes = randomBytes(24 * 1024 * 1024)
  const sum = createHash('sha256').update(bytes).digest('hex')
  blocked.pause()
  const read = sumOf(reader, bytes.length)
  const readLater = sumOf(blocked, bytes.length)
  for (let start = 0; start < bytes.length; start += 256 * 1024) {
    for (const socket of [reader, blocked]) socket.send(bytes.subarray(start, start + 256 * 1024))
  }
  t.equal(await read, sum)
  blocked.resume()
  t.equal(await readLater, sum)
})

t.test('a receiver that does not read holds the sender back, also where its messages are compressed', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { perMessageDeflate: true }))
  const sender = await openWebSocket(t, app, '/relay', ['spanza.raw.v1'], { perMessageDeflate: false })
  const receiver = await openWebSocket(t, app, '/relay', ['spanza.raw.v1'], { perMessageDeflate: true })
  receiver.pause()
  const piece = randomBytes(256 * 1024)
  for (let i = 0; i < 256; i++) sender.send(piece)
  const taken = (): number => Math.max(...app.relayHub.peers().map(({ bytesIn }) => bytesIn))
  let before = -1
  while (taken() !== before) {
    before = taken()
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  // What two kernels hold, and not all of it.
  t.ok(taken() < 32 * 1024 * 1024, `${taken()} bytes are taken`)
})

const socketHeaders = { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
type ServerOptions = WebsocketPluginOptions['options']

function failWith (message: string): never {
  throw new Error(message)
}

const faults: Record<string, { options?: ServerOptions, headers?: () => void, code?: string }> = {
  'verifyClient throws': { options: { verifyClient: () => failWith('verify') } },
  'a listener for headers throws': { options: {}, headers: () => failWith('headers') },
  'a listener for headers throws after verifyClient took its time': {
    options: { verifyClient: (_info, answer) => { setImmediate(answer, true) } },
    headers: () => failWith('late'),
    code: 'FST_RELAY_WEBSOCKET_FAULT'
  }
}
for (const [what, { options, headers, code }] of Object.entries(faults)) {
  for (const target of ['udp', 'tcp', undefined]) {
    t.test(`where ${what}, one handshake is answered with 500, and nothing is left of it (${target ?? 'no target'})`, async (t) => {
      const server = createServer().listen(0, '127.0.0.1')
      await once(server, 'listening')
      t.teardown(() => server.close())
      const { port } = server.address() as AddressInfo
      const handled: string[] = []
      const app = await startApp(t, async (app) => {
        await app.register(websocket, options === undefined ? {} : { options })
        if (headers !== undefined) app.websocketServer.on('headers', headers)
        app.setErrorHandler(async (error: Error, _request, reply) => { handled.push(error.message); return await reply.code(500).send({ message: 'handled' }) })
        app.relay('/relay', target === undefined ? {} : { target: `${target}://127.0.0.1:${port}` })
      })
      const refusals = refusalsOf(app)
      const wanted = target === 'tcp' ? { ...socketHeaders, 'Sec-WebSocket-Protocol': 'spanza.raw.v1' } : socketHeaders
      const { statusCode, headers: answered } = await askForUpgrade(t, app, '/relay', { headers: wanted })
      t.match({ statusCode, answered }, { statusCode: 500, answered: { connection: 'close' } })
      t.equal(handled.length, code === undefined ? 1 : 0, 'the error handler of the app has seen what could still be brought to it')
      t.match(refusals, [{ statusCode: 500, code }])
      t.equal(app.websocketServer.listenerCount('headers'), headers === undefined ? 0 : 1)
    })
  }
}

t.test('handshakes that wait for verifyClient leave no listeners on the server', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(websocket, { options: { verifyClient: (_info, _answer) => {} } })
    app.relay('/relay')
  })
  for (let i = 0; i < 12; i++) await (await RawClient.dial(t, app)).send(openingHandshake)
  await app.inject('/')
  t.equal(app.websocketServer.listenerCount('headers'), 0)
})

for (const httpVersion of ['1.1', '2']) {
  t.test(`a compressed message that would grow above maxPacketSize is refused; others of that size are dropped (HTTP/${httpVersion})`, async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { perMessageDeflate: true }), {
      server: (httpVersion === '2' ? { http2: true } : {}) as object, relay: { maxPacketSize: 1000 }
    })
    const connection = async (): Promise<Duplex> => (await openTunnelOn(await openSession(t, app), '/relay', { headers: { 'sec-websocket-extensions': 'permessage-deflate' } })).stream
    const open = async (): Promise<WebSocket> => {
      if (httpVersion === '1.1') return await openWebSocket(t, app, '/relay', [], { perMessageDeflate: { threshold: 1 } })
      const socket = new (WebSocket as unknown as new (address: null, protocols: undefined, options: object) => WebSocket)(null, undefined, { isServer: false })
      const deflate = new PerMessageDeflate({ threshold: 1, isServer: false })
      deflate.accept([{}])
      Object.assign(socket, { _isServer: false, _extensions: { 'permessage-deflate': deflate } })
      ;(socket as unknown as { setSocket: (...args: unknown[]) => void }).setSocket(await connection(), Buffer.alloc(0), { maxPayload: 0 })
      return socket
    }
    const socket = await open()
    socket.send(Buffer.alloc(2000), { compress: false })
    socket.send(Buffer.alloc(1000), { compress: true })
    await until(() => app.relayHub.stats().datagramsIn === 2)
    t.match(app.relayHub.stats().drops, { 'too-large': 1 })
    t.equal(app.relayHub.stats().peers, 1)
    const closed = once(socket, 'close')
    socket.send(Buffer.alloc(1001), { compress: true })
    t.match(await closed, [1009])
    t.match(app.relayHub.stats().detached, { 'protocol-error': 1 })
  })
}
