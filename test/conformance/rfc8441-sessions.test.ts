import { once } from 'node:events'
import t from 'tap'
import { createGate, type Gate } from '../helpers/gate.ts'
import { connectStream, openSession, openTunnelOn, request } from '../helpers/http2-client.ts'
import { serverCertificate } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { connectHeaders, errorCodes, frameTypes, RawSession } from './raw-http2.ts'
import { left, newChannel, startServer } from './server.ts'
import { closeFrame, frame, message, opcodes, readClose, readFrame, readMessage } from './websocket-frames.ts'

// Sessions and their tunnels: GOAWAY from either side, timeouts, limits, and the end of the server (RFC 9113, sections 5.4 and 6.8).

t.test('a client that says GOAWAY keeps its tunnels', async (t) => {
  const app = await startServer(t)
  const session = await RawSession.open(t, app)
  const path = `/relay/${newChannel()}`
  const [from, to] = [await session.connect(path), await session.connect(path, 'websocket', { 'x-id': 'b' })]
  session.goAway(0)
  await session.roundTrip()
  await from.send(message('still here'))
  t.equal(String(await readMessage(to)), 'still here')
  const gone = left(app, 'b')
  await to.send(closeFrame(1000), true)
  t.equal((await gone).reason, 'ended')
})

t.test('a client of Node that closes its session does so once its tunnels have ended', async (t) => {
  const app = await startServer(t)
  const session = await openSession(t, app)
  const path = `/relay/${newChannel()}`
  const [from, to] = [await openTunnelOn(session, path, { protocol: 'spanza' }), await openTunnelOn(session, path, { protocol: 'spanza' })]
  const closed = once(session, 'close')
  session.close()
  from.stream.end('last words')
  t.equal(String(await to.readToEnd()), 'last words')
  to.stream.end()
  await closed
})

t.test('a client that says GOAWAY because of an error and leaves takes its tunnels with it', async (t) => {
  const app = await startServer(t)
  const session = await RawSession.open(t, app)
  await session.connect(`/relay/${newChannel()}`, 'spanza', { 'x-id': 'a' })
  const gone = left(app, 'a')
  session.goAway(0, errorCodes.indexOf('PROTOCOL_ERROR'))
  session.socket.end()
  t.equal((await gone).reason, 'lost')
})

for (const tls of [false, true]) {
  t.test(`a server ${tls ? 'with' : 'without'} TLS that closes says GOAWAY, tells its tunnels, and takes no new ones`, async (t) => {
    const app = await startServer(t, { ...(tls && { server: { http2: true, https: { ...serverCertificate(), allowHTTP1: true } } }) })
    const session = await RawSession.open(t, app, { tls })
    const webSocket = await session.connect(`/relay/${newChannel()}`, 'websocket', { 'x-id': 'webSocket' })
    const stream = await session.connect(`/relay/${newChannel()}`, 'websocket', { 'sec-websocket-protocol': 'spanza.raw.v1', 'x-id': 'stream' })
    const pair = `/relay/${newChannel()}`
    const bare = await session.connect(pair, 'spanza', { 'x-id': 'bare' })
    await session.connect(pair, 'spanza')
    const waiting = await session.connect(`/relay/${newChannel()}`, 'spanza', { 'x-id': 'waiting' })
    const gone = Promise.all(['webSocket', 'stream', 'bare', 'waiting'].map(async (id) => (await left(app, id)).reason))
    const closed = app.close()
    t.same(await gone, ['shutdown', 'shutdown', 'shutdown', 'shutdown'])
    t.equal((await readClose(webSocket)).code, 1001)
    t.equal((await readClose(stream)).code, 1001)
    await until(() => bare.isOver && waiting.isOver && session.goAwayCode !== undefined)
    t.equal(bare.resetCode, errorCodes.indexOf('CANCEL'))
    t.equal(session.goAwayCode, 0)
    const late = session.request(connectHeaders('/relay/late'))
    for (const each of [webSocket, stream]) await each.send(closeFrame(1001), true)
    waiting.end()
    await closed
    await until(() => session.isClosed)
    t.not(late.status, 200)
    t.equal(app.relayHub.stats().peers, 0)
  })
}

t.test('a server closes also when its clients do not answer', async (t) => {
  const app = await startServer(t, { relay: { closeGrace: 50 } })
  const session = await RawSession.open(t, app)
  const webSocket = await session.connect(`/relay/${newChannel()}`)
  const idle = await RawSession.open(t, app)
  await app.close()
  await until(() => session.isClosed && idle.isClosed)
  t.equal((await readClose(webSocket)).code, 1001)
})

t.test('a handshake whose hooks run when the server closes is answered 503', async (t) => {
  const gate: Gate = createGate()
  const app = await startServer(t, { setUp: (app) => { app.relay('/gate', { onRequest: gate.hook }) } })
  const session = await openSession(t, app)
  const client = connectStream(session, '/gate')
  await gate.reached
  const closed = app.close()
  const { statusCode, headers, body } = await client.answer()
  t.equal(Number(statusCode), 503)
  t.ok(Number(headers['retry-after']) > 0)
  t.match(JSON.parse(body), { code: 'FST_RELAY_CLOSING' })
  gate.open()
  await closed
})

t.test('a session with a silent tunnel is not idle, one without is', async (t) => {
  const app = await startServer(t, { server: { http2: true, http2SessionTimeout: 100 } })
  const holding = await RawSession.open(t, app)
  const path = `/relay/${newChannel()}`
  const [from, to] = [await holding.connect(path, 'spanza'), await holding.connect(path, 'spanza')]
  // Each of these is closed after as long as the tunnels are silent.
  for (let i = 0; i < 3; i++) {
    const idle = await RawSession.open(t, app)
    await until(() => idle.isClosed)
  }
  t.equal(holding.goAwayCode, undefined)
  await holding.connect(`/relay/${newChannel()}`, 'spanza').then((stream) => stream.end())
  await from.send(Buffer.from('hello'), true)
  t.equal(String(await to.readToEnd()), 'hello')
  to.end()
  await until(() => holding.isClosed)
  t.pass('and is idle once its tunnels have ended')
})

t.test('handshakes', async (t) => {
  await t.test('that come too fast from one client are refused, on one session as on many', async (t) => {
    const app = await startServer(t, { relay: { clientHandshakesPerSecond: 1 } })
    const session = await openSession(t, app)
    const statuses: number[] = []
    for (let i = 0; i < 8; i++) statuses.push(Number((await connectStream(session, `/relay/${newChannel()}`).head())[':status']))
    t.ok(statuses.includes(200) && statuses.at(-1) === 429, statuses.join(' '))
    const { headers, body } = await connectStream(await openSession(t, app), '/relay/x').answer()
    t.match(JSON.parse(body), { code: 'FST_RELAY_CLIENT_RATE' })
    t.ok(Number(headers['retry-after']) > 0)
    t.equal((await request(session, { ':path': '/alive' })).body, 'alive', 'REST goes on')
  })

  await t.test('of which too many are unfinished on one session are refused', async (t) => {
    const gate = createGate()
    const app = await startServer(t, {
      relay: { maxClientUnfinishedHandshakes: 3 }, setUp: (app) => { app.relay('/gate/:channel', { onRequest: gate.hook }) }
    })
    const session = await openSession(t, app)
    const waiting = Array.from({ length: 3 }, () => connectStream(session, `/gate/${newChannel()}`))
    const { statusCode, body } = await connectStream(session, `/gate/${newChannel()}`).answer()
    t.equal(Number(statusCode), 429)
    t.match(JSON.parse(body), { code: 'FST_RELAY_CLIENT_UNFINISHED' })
    gate.open()
    for (const client of waiting) t.equal(Number((await client.head())[':status']), 200)
    t.equal(Number((await connectStream(session, `/gate/${newChannel()}`).head())[':status']), 200, 'and room is there again')
  })

  await t.test('that were refused leave room behind', async (t) => {
    const app = await startServer(t, { relay: { maxClientUnfinishedHandshakes: 3 } })
    const session = await openSession(t, app)
    for (let i = 0; i < 20; i++) t.equal(Number((await connectStream(session, '/body-401').answer()).statusCode), 401)
  })

  await t.test('that were reset leave room behind', async (t) => {
    const app = await startServer(t, { relay: { maxClientUnfinishedHandshakes: 3 } })
    const session = await RawSession.open(t, app)
    for (let i = 0; i < 50; i++) {
      session.request(connectHeaders(`/relay/${newChannel()}`)).reset(errorCodes.indexOf('CANCEL'))
      await session.roundTrip()
    }
    await until(() => app.relayHub.stats().peers === 0)
    const stream = session.isClosed ? undefined : session.request(connectHeaders(`/relay/${newChannel()}`))
    t.equal(await (stream ?? (await RawSession.open(t, app)).request(connectHeaders('/relay/x'))).answer(), 200)
  })

  await t.test('whose hooks take too long are answered, and reset where that is not read', async (t) => {
    const gate = createGate()
    const app = await startServer(t, { relay: { handshakeTimeout: 100 }, setUp: (app) => { app.relay('/gate', { onRequest: gate.hook }) } })
    const session = await openSession(t, app)
    const { statusCode, body } = await connectStream(session, '/gate').answer()
    gate.open()
    t.ok(Number(statusCode) >= 500)
    t.match(JSON.parse(body), { code: 'FST_RELAY_HANDSHAKE_TIMEOUT' })
  })
})

t.test('a client sends PINGs of HTTP/2 and gets them back while tunnels are busy', async (t) => {
  const app = await startServer(t)
  const session = await RawSession.open(t, app)
  const stream = await session.connect(`/relay/${newChannel()}`)
  await stream.send(frame(opcodes.PING))
  session.send(frameTypes.PING, 0, 0, Buffer.from('12345678'))
  await until(() => session.frames.some(({ type, payload }) => type === frameTypes.PING && String(payload) === '12345678'))
  t.equal((await readFrame(stream)).first, 0x80 | opcodes.PONG)
})
