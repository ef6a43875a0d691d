import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { WebSocket } from 'ws'
import { openBare, startApp } from '../../helpers/relay-app.ts'
import { detached, startRelay } from '../../helpers/relay.ts'
import { until } from '../../helpers/tunnel.ts'
import { openWebSocket } from '../../helpers/websocket.ts'

const MIB = 1024 * 1024

async function openStream (t: Test, app: FastifyInstance, id?: string): Promise<WebSocket> {
  return await openWebSocket(t, app, '/relay/a', ['spanza.raw.v1'], id === undefined ? {} : { headers: { 'x-id': id } })
}

async function closed (socket: WebSocket): Promise<{ code: number, reason: string }> {
  const [code, reason] = await once(socket, 'close')
  return { code, reason: String(reason) }
}

/** Sends so many random bytes as messages of all sizes, no faster than they are taken; returns their hash. */
async function sendBytes (socket: WebSocket, total: number): Promise<string> {
  const hash = createHash('sha256')
  let left = total
  while (left > 0) {
    const message = randomBytes(Math.min(left, 1 + Math.floor(Math.random() * 200_000)))
    hash.update(message)
    left -= message.length
    await new Promise<void>((resolve, reject) => socket.send(message, (error) => error == null ? resolve() : reject(error)))
  }
  return hash.digest('hex')
}

/** The hash of so many bytes, once they have come. */
async function receiveBytes (socket: WebSocket, total: number): Promise<string> {
  const hash = createHash('sha256')
  let left = total
  return await new Promise((resolve) => {
    socket.on('message', (message: Buffer) => {
      hash.update(message)
      left -= message.length
      if (left <= 0) resolve(hash.digest('hex'))
    })
  })
}

t.test('two WebSockets are joined as a stream of bytes, both ways', async (t) => {
  const app = await startRelay(t)
  const [a, b] = [await openStream(t, app), await openStream(t, app)]
  t.same([a.protocol, b.protocol], ['spanza.raw.v1', 'spanza.raw.v1'])
  const received = Promise.all([receiveBytes(a, 20 * MIB), receiveBytes(b, 20 * MIB)])
  const [fromA, fromB] = await Promise.all([sendBytes(a, 20 * MIB), sendBytes(b, 20 * MIB)])
  t.same(await received, [fromB, fromA])
})

t.test('a WebSocket and a bare tunnel are joined', async (t) => {
  const app = await startRelay(t)
  const socket = await openStream(t, app)
  const tunnel = await openBare(t, app, '/relay/a')
  socket.send(Buffer.from('there'))
  t.equal(String(await tunnel.read(5)), 'there')
  const message = once(socket, 'message')
  await tunnel.send('back')
  t.same(await message, [Buffer.from('back'), true])
})

t.test('a client that does not read holds the other one back', async (t) => {
  const app = await startRelay(t)
  const [from, slow] = [await openStream(t, app, 'from'), await openStream(t, app)]
  slow.pause()
  const received = receiveBytes(slow, 40 * MIB)
  const sent = sendBytes(from, 40 * MIB)
  // What the kernel holds for both, and no more.
  let before = -1
  await until(() => {
    const { bytesIn } = app.relayHub.peers().find(({ id }) => id === 'from')!
    const stands = bytesIn === before && bytesIn > 0
    before = bytesIn
    return stands
  })
  t.ok(before < 30 * MIB, `${before} bytes were read`)
  slow.resume()
  t.equal(await received, await sent)
})

t.test('code and reason of the Close frame pass through', async (t) => {
  const rows: Array<[number | undefined, string, { code: number, reason: string }]> = [
    [1000, '', { code: 1000, reason: '' }],
    [1000, 'done', { code: 1000, reason: 'done' }],
    [3000, 'registered', { code: 3000, reason: 'registered' }],
    [4999, '\u{1f600} private', { code: 4999, reason: '\u{1f600} private' }],
    [1011, 'an error', { code: 1011, reason: 'an error' }],
    [undefined, '', { code: 1005, reason: '' }]
  ]
  for (const [code, reason, expected] of rows) {
    await t.test(`${code}`, async (t) => {
      const app = await startRelay(t)
      const [a, b] = [await openStream(t, app, 'a'), await openStream(t, app)]
      const left = detached(app, 'a')
      const told = closed(b)
      const message = once(b, 'message')
      a.send(Buffer.from('the last words'))
      a.close(code, reason)
      t.same(await message, [Buffer.from('the last words'), true])
      t.same(await told, expected)
      t.match(await left, { reason: 'ended' })
    })
  }
})

t.test('the end of a bare tunnel closes the WebSocket with 1000, and the other way round', async (t) => {
  const app = await startRelay(t)
  for (const who of ['tunnel', 'WebSocket']) {
    const socket = await openStream(t, app, who)
    const tunnel = await openBare(t, app, '/relay/a')
    const left = detached(app, who)
    const told = closed(socket)
    if (who === 'tunnel') tunnel.socket.end('bye')
    else socket.close(4000, 'bye')
    await once(tunnel.socket, 'end')
    if (who === 'WebSocket') tunnel.socket.end()
    t.same(await told, who === 'tunnel' ? { code: 1000, reason: '' } : { code: 4000, reason: 'bye' })
    t.match(await left, { reason: 'ended' })
  }
})

t.test('a break is told as one', async (t) => {
  const app = await startRelay(t)
  const [a, b] = [await openStream(t, app, 'a'), await openStream(t, app, 'b')]
  const [left, broken] = [detached(app, 'a'), detached(app, 'b')]
  const told = closed(b)
  a.terminate()
  t.same(await told, { code: 1011, reason: 'the other tunnel broke' })
  t.match(await left, { reason: 'lost' })
  t.match(await broken, { reason: 'partner-lost' })
  const socket = await openStream(t, app)
  const tunnel = await openBare(t, app, '/relay/a')
  const reset = once(tunnel.socket, 'error')
  socket.terminate()
  t.match(await reset, [{ code: 'ECONNRESET' }])
})

t.test('who waits alone is told why it is closed', async (t) => {
  const app = await startRelay(t, { pairTimeout: 50 })
  t.same(await closed(await openStream(t, app)), { code: 1013, reason: 'no second tunnel connected within 50 ms' })
})

t.test('a text message, or one of more than 1 MiB, is refused', async (t) => {
  const app = await startRelay(t)
  for (const [message, expected] of [['text', { code: 1003, reason: 'a text message' }], [Buffer.alloc(MIB + 1), { code: 1009, reason: '' }]] as const) {
    const [a, b] = [await openStream(t, app), await openStream(t, app)]
    const told = [closed(a), closed(b)]
    a.send(message)
    t.same(await Promise.all(told), [expected, { code: 1011, reason: 'the other tunnel broke' }])
  }
})

t.test('an idle stream is pinged, and closed when it does not answer', async (t) => {
  const app = await startRelay(t, { keepaliveInterval: 50, keepaliveTimeout: 200 })
  const [a, b] = [await openStream(t, app, 'a'), await openStream(t, app)]
  for (let i = 0; i < 8; i++) await Promise.all([once(a, 'ping'), once(b, 'ping')])
  t.equal(app.relayHub.stats().peers, 2)
  const left = detached(app, 'a')
  a.pause()
  t.match(await left, { reason: 'idle' })
})

t.test('a WebSocket on a tcp: target is a stream, with or without a subprotocol', async (t) => {
  const server = createServer((socket: Socket) => socket.pipe(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  const app = await startApp(t, (app) => { app.relay('/relay/:n', { target: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` }) })
  for (const protocols of [[], ['spanza.raw.v1']]) {
    const socket = await openWebSocket(t, app, '/relay/a', protocols)
    const received = receiveBytes(socket, 5 * MIB)
    t.equal(await sendBytes(socket, 5 * MIB), await received)
    const told = closed(socket)
    socket.close(1000)
    t.match(await told, { code: 1000 })
  }
  await until(() => app.relayHub.stats().peers === 0)
  t.equal(app.relayHub.stats().detached['ended'], 2)
})
