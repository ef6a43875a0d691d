import { once } from 'node:events'
import { connect as connectTcp, type AddressInfo } from 'node:net'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay, { type SpanzaRelayOptions } from '../../lib/index.ts'
import { connect } from '../../lib/client/index.ts'
import { connectHeaders, flags, frameTypes, RawSession, settingIds } from '../conformance/raw-http2.ts'
import { openSession, openTunnelOn } from '../helpers/http2-client.ts'
import { encodeFrame, hpack, PREFACE } from '../helpers/http2-frames.ts'
import { askForUpgrade, startApp, startListening } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

const HTTP2 = { http2: true } as object

/** A client that takes no byte of any answer. */
async function openBlocked (t: Test, app: FastifyInstance): Promise<RawSession> {
  return await RawSession.open(t, app, { settings: { [settingIds.INITIAL_WINDOW_SIZE]: 0 } })
}

async function flood (session: RawSession, count: number, path = '/relay'): Promise<void> {
  for (let i = 0; i < count; i++) session.request(connectHeaders(path, 'spanza'))
  await session.roundTrip()
}

t.test('refusals that a client does not take keep nobody else out', async (t) => {
  const relay = { maxUnfinishedHandshakes: 20, clientHandshakesPerSecond: 1 }
  const app = await startApp(t, (app) => app.relay('/relay', { framings: ['wg'] }), {
    server: HTTP2, relay
  })
  const attacker = await openBlocked(t, app)
  await flood(attacker, 100)
  const refused = { ...app.relayHub.stats().refused }
  t.ok(refused['FST_RELAY_CLIENT_RATE']! >= 80, `${refused['FST_RELAY_CLIENT_RATE']} are refused by the rate of the client`)
  t.equal(refused['FST_RELAY_HUB_UNFINISHED'], undefined)
  t.equal(refused['FST_RELAY_CLIENT_GONE'], undefined)
  const other = await RawSession.open(t, app, { localAddress: '127.0.0.2' })
  t.equal((await other.connect('/relay', 'spanza', { 'spanza-framing': 'wg' })).status, 200, 'another client')
  await flood(attacker, 100)
  t.equal(app.relayHub.stats().refused['FST_RELAY_CLIENT_GONE'], undefined)
})

t.test('answers of hooks that a client does not take do not count as unfinished', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay')
    app.relay('/guarded', { onRequest: async (_request, reply) => await reply.code(401).send('no') })
  }, { server: HTTP2, relay: { maxUnfinishedHandshakes: 3, maxClientUnfinishedHandshakes: 2 } })
  const attacker = await openBlocked(t, app)
  await flood(attacker, 10, '/guarded')
  await until(() => app.relayHub.stats().refused['401'] === 10)
  await openTunnelOn(await openSession(t, app), '/relay')
})

for (const http2 of [false, true]) {
  t.test(`one client does not keep others out while hooks run that come before the plugin (HTTP/${http2 ? '2' : '1.1'})`, async (t) => {
    let isSlow = false
    const app = Fastify(http2 ? HTTP2 : {}) as FastifyInstance
    app.addHook('onRequest', async ({ ip }) => { if (isSlow && ip === '127.0.0.1') await new Promise(() => {}) })
    await app.register(spanzaRelay, { maxUnfinishedHandshakes: 20, maxClientUnfinishedHandshakes: 10 })
    app.relay('/relay')
    app.get('/', async () => 'first')
    await startListening(t, app)
    t.equal((await app.inject('/')).body, 'first')
    isSlow = true
    if (http2) {
      await flood(await openBlocked(t, app), 40)
    } else {
      for (let i = 0; i < 40; i++) askForUpgrade(t, app, '/relay').catch(() => {})
    }
    await until(() => app.relayHub.stats().refused['FST_RELAY_CLIENT_UNFINISHED'] === 30)
    if (http2) t.equal(await (await RawSession.open(t, app, { localAddress: '127.0.0.2' })).connect('/relay', 'spanza').then(({ status }) => status), 200)
    else t.equal((await askForUpgrade(t, app, '/relay', {}, { localAddress: '127.0.0.2' })).statusCode, 101)
  })
}

t.test('clients behind a trusted proxy are limited one by one before any hook', async (t) => {
  const reached: string[] = []
  const app = Fastify({ trustProxy: '127.0.0.1' }) as FastifyInstance
  app.addHook('onRequest', async ({ ip, url }) => {
    if (url === '/') return
    reached.push(ip)
    if (ip === '203.0.113.1') await new Promise(() => {})
  })
  await app.register(spanzaRelay, { maxUnfinishedHandshakes: 3, maxClientUnfinishedHandshakes: 2, handshakeTimeout: 2000 })
  app.relay('/relay/:id')
  app.get('/', async () => 'first')
  await startListening(t, app)
  await app.inject('/')
  const from = (address: string) => ({ headers: { 'X-Forwarded-For': address } })
  for (let i = 0; i < 2; i++) askForUpgrade(t, app, '/relay/0', from('203.0.113.1')).catch(() => {})
  await until(() => reached.length === 2)
  t.equal((await askForUpgrade(t, app, '/relay/0', from('203.0.113.1'))).statusCode, 429)
  t.equal((await askForUpgrade(t, app, '/relay/2', from('203.0.113.2'))).statusCode, 101)
  t.same(reached, ['203.0.113.1', '203.0.113.1', '203.0.113.2'])
})

t.test('a client that resets its connection behind its requests is limited as any other', async (t) => {
  const SESSIONS = 40
  let hooks = 0
  const relay = { clientHandshakesPerSecond: 1, handshakesPerSecond: 10 }
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async () => { hooks++ } }), { server: HTTP2, relay })
  const { port } = app.server.address() as AddressInfo
  const requests = Array.from({ length: 5 }, (_, i) => encodeFrame(frameTypes.HEADERS, flags.END_HEADERS, 1 + 2 * i, hpack(connectHeaders('/relay', 'spanza'))))
  const bytes = Buffer.concat([PREFACE, encodeFrame(frameTypes.SETTINGS, 0, 0), ...requests])
  let sessions = 0
  app.server.on('session', () => { sessions++ })
  for (let i = 0; i < SESSIONS; i++) {
    const socket = connectTcp({ port, host: '127.0.0.1' })
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.write(bytes, () => socket.resetAndDestroy())
    await once(socket, 'close')
  }
  await until(() => sessions === SESSIONS)
  const other = await RawSession.open(t, app, { localAddress: '127.0.0.2' })
  t.equal((await other.connect('/relay', 'spanza')).status, 200, 'another client')
  t.ok(hooks <= 100, `the hooks ran ${hooks} times`)
  t.equal(app.relayHub.stats().refused['FST_RELAY_HUB_RATE'], undefined)
})

async function announcedStreams (t: Test, relay: SpanzaRelayOptions, settings?: object): Promise<number[]> {
  const app = await startApp(t, (app) => { app.relay('/one'); app.relay('/two') }, { server: { http2: true, ...(settings === undefined ? {} : { http: { settings } }) } as object, relay })
  const session = await RawSession.open(t, app)
  return session.serverSettings.filter(([id]) => id === settingIds.MAX_CONCURRENT_STREAMS).map(([, value]) => value)
}

t.test('how many streams a session may have', async (t) => {
  t.same(await announcedStreams(t, {}), [356], 'the tunnels of one client, and 100 others')
  t.same(await announcedStreams(t, { maxClientPeers: 1e9 }), [1e9 + 100])
  t.same(await announcedStreams(t, {}, { maxConcurrentStreams: 7 }), [7], 'or as many as the app says')
})

t.test('refusals that are not taken do not pile up in a session', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), { server: HTTP2, relay: { maxClientPeers: 1, clientHandshakesPerSecond: 1 } })
  const attacker = await openBlocked(t, app)
  for (let i = 0; i < 300; i++) attacker.request(connectHeaders('/relay', 'spanza'))
  await until(() => attacker.isClosed || attacker.goAwayCode !== undefined)
  const { attached, refused } = app.relayHub.stats()
  t.ok(attached + Object.values(refused).reduce((sum, count) => sum + count, 0) <= 102)
})

t.test('as many tunnels as one client may have share a connection of ours', async (t) => {
  const TUNNELS = 256
  let sessions = 0
  const app = await startApp(t, (app) => {
    app.server.on('session', () => { sessions++ })
    app.relay('/relay/:id')
  }, { server: HTTP2, relay: { clientHandshakesPerSecond: 1000, handshakesPerSecond: 1000, maxClientUnfinishedHandshakes: TUNNELS } })
  const { port } = app.server.address() as AddressInfo
  const tunnels = await Promise.all(Array.from({ length: TUNNELS }, async (_, i) =>
    await connect(`http://127.0.0.1:${port}/relay/${i}`, { httpVersion: 2, framings: 'raw' })))
  t.equal(sessions, 1)
  t.equal(app.relayHub.stats().peers, TUNNELS)
  for (const tunnel of tunnels) tunnel.on('error', () => {}).destroy()
})

const connectionErrors: Record<string, (session: RawSession) => void> = {
  'DATA on stream 0': (session) => session.send(frameTypes.DATA, 0, 0, Buffer.from('x')),
  'a header block that cannot be decoded': (session) => session.send(frameTypes.HEADERS, flags.END_HEADERS, 3, Buffer.alloc(5, 255)),
  'SETTINGS of a wrong size': (session) => session.send(frameTypes.SETTINGS, 0, 0, Buffer.from('abc')),
  'what is no frame': (session) => { session.socket.write(Buffer.alloc(100, 255)) }
}
for (const [what, send] of Object.entries(connectionErrors)) {
  t.test(`peers leave when their session ends because of ${what}, though the client keeps the connection open`, async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'), { server: HTTP2, relay: { keepaliveInterval: 50, keepaliveTimeout: 150 } })
    const session = await RawSession.open(t, app)
    await session.connect('/relay', 'spanza')
    await session.connect('/relay', 'spanza')
    send(session)
    await until(() => app.relayHub.stats().peers === 0)
    t.equal(app.relayHub.stats().attached, 2)
  })
}

t.test('a session with silent tunnels lives while its client answers PING, and ends when it does not', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), { server: HTTP2, relay: { keepaliveInterval: 20, keepaliveTimeout: 200 } })
  const session = await RawSession.open(t, app)
  await session.connect('/relay', 'spanza')
  await until(() => session.frames.filter(({ type }) => type === frameTypes.PING).length > 20)
  t.equal(app.relayHub.stats().peers, 1)
  const left = once(app.relayHub, 'detach')
  session.answersPings = false
  t.match((await left)[1], { reason: 'lost', text: 'no sign of life for 200 ms, no answer to PING' })
  await until(() => session.isClosed)
})

t.test('a session that has ended does not keep its connection for ever', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'), { server: { http2: true, http2SessionTimeout: 100 } as object })
  const session = await RawSession.open(t, app, { allowHalfOpen: true })
  session.goAway(0, 1)
  await until(() => {
    // It has ended its side; only who writes hears that it is gone.
    session.send(frameTypes.PING, 0, 0, Buffer.alloc(8))
    return session.isClosed
  })
})

t.test('beside @fastify/websocket, an upgrade that no router can take does not keep the connection, nor the server open', async (t) => {
  const app = await startApp(t, async (app) => {
    await app.register(websocket)
    app.relay('/relay')
    app.get('/parameter/:id', async () => 'rest')
  })
  for (const path of ['/%', '/%ff', `/parameter/${'a'.repeat(200)}`]) {
    const { statusCode } = await askForUpgrade(t, app, path, { headers: { Upgrade: 'websocket' } }, { allowHalfOpen: true })
    t.ok([400, 404, 414].includes(statusCode), `${statusCode} for ${path}`)
  }
  await new Promise<void>((resolve) => app.server.close(() => resolve()))
})
