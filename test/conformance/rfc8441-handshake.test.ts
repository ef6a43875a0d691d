import t from 'tap'
import type { RelayErrorCode } from '../../lib/index.ts'
import { createGate, type Gate } from '../helpers/gate.ts'
import { connectStream, openSession, openTunnelOn, request, type ConnectParts } from '../helpers/http2-client.ts'
import { refusalsOf, startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { connectHeaders, errorCodes, frameTypes, RawSession, settingIds, type HeaderList } from './raw-http2.ts'
import { left, newChannel, peerOf, startServer } from './server.ts'
import { frame, message, opcodes, readMessage } from './websocket-frames.ts'

// The opening handshake of RFC 8441, on one server. What Node's client does not send is sent frame by frame.

let gate: Gate

const app = await startServer(t, {
  setUp: (app) => { app.relay('/gate/:channel', { onRequest: async () => await gate.hook() }) }
})

t.test('the server announces extended CONNECT in its first frame, before any request', async (t) => {
  const session = await RawSession.open(t, app)
  t.equal(session.frames[0]!.type, frameTypes.SETTINGS)
  t.match(session.serverSettings, [[settingIds.MAX_CONCURRENT_STREAMS, 356], [settingIds.ENABLE_CONNECT_PROTOCOL, 1]])
  const { remoteSettings } = await openSession(t, app)
  t.equal(remoteSettings.enableConnectProtocol, true, 'as Node sees it')
})

t.test('a server without relay routes does not announce it', async (t) => {
  const app = await startApp(t, () => {}, { server: { http2: true } as object })
  const session = await RawSession.open(t, app)
  t.notOk(session.serverSettings.some(([id, value]) => id === settingIds.ENABLE_CONNECT_PROTOCOL && value === 1))
})

t.test('a WebSocket is answered 200, without what HTTP/1.1 needs, and the stream stays open', async (t) => {
  const session = await openSession(t, app)
  const client = await openTunnelOn(session, `/relay/${newChannel()}`, { headers: { 'x-id': 'a' } })
  t.same(namesOf(await client.head()), [':status', 'date', 'spanza-max-packet'])
  t.notOk(client.hasEnded)
  const { httpVersion, protocol, framing, address } = peerOf(app, 'a')!
  t.same({ httpVersion, protocol, framing, address }, { httpVersion: '2.0', protocol: 'websocket', framing: 'websocket', address: '127.0.0.1' })
})

t.test('a key of HTTP/1.1 means nothing', async (t) => {
  const session = await openSession(t, app)
  const client = await openTunnelOn(session, `/relay/${newChannel()}`, { headers: { 'sec-websocket-key': 'nonsense' } })
  t.notOk('sec-websocket-accept' in await client.head())
})

/** The names of the headers, sorted. */
function namesOf (headers: object): string[] {
  return Object.keys(headers).sort()
}

interface Agreement {
  path: string
  parts: ConnectParts
  headers: Record<string, string>
  framing: string
  kind: string
}

const agreements: Record<string, Agreement> = {
  'no subprotocol: datagrams': { path: 'relay', parts: {}, headers: {}, framing: 'websocket', kind: 'packet' },
  'no subprotocol where there are only streams: a stream': { path: 'raw-only', parts: {}, headers: {}, framing: 'raw', kind: 'stream' },
  ...Object.fromEntries([['spanza.v1', 'websocket', 'packet'], ['spanza.raw.v1', 'raw', 'stream']].map(([name, framing, kind]) => [`the subprotocol ${name}`, {
    path: 'relay', parts: { headers: { 'sec-websocket-protocol': name } }, headers: { 'sec-websocket-protocol': name }, framing, kind
  } as Agreement])),
  'of several subprotocols the first that is known': {
    path: 'relay',
    parts: { headers: { 'sec-websocket-protocol': 'chat, spanza.raw.v1, spanza.v1' } },
    headers: { 'sec-websocket-protocol': 'spanza.raw.v1' },
    framing: 'raw',
    kind: 'stream'
  },
  'of several subprotocols the one that the route has': {
    path: 'datagrams-only',
    parts: { headers: { 'sec-websocket-protocol': 'spanza.raw.v1,spanza.v1' } },
    headers: { 'sec-websocket-protocol': 'spanza.v1' },
    framing: 'websocket',
    kind: 'packet'
  },
  'spanza: a bare stream': { path: 'relay', parts: { protocol: 'spanza' }, headers: {}, framing: 'raw', kind: 'stream' },
  ...Object.fromEntries(['wg', 'len16'].map((name) => [`spanza with the framing ${name}`, {
    path: 'relay',
    parts: { protocol: 'spanza', headers: { 'spanza-framing': name } },
    headers: { 'spanza-framing': name, 'spanza-max-packet': '65535' },
    framing: name,
    kind: 'packet'
  } as Agreement])),
  'spanza, with several framings': {
    path: 'relay',
    parts: { protocol: 'spanza', headers: { 'spanza-framing': 'wg/2, LEN16, wg' } },
    headers: { 'spanza-framing': 'len16', 'spanza-max-packet': '65535' },
    framing: 'len16',
    kind: 'packet'
  }
}

for (const [title, { path, parts, headers, framing, kind }] of Object.entries(agreements)) {
  t.test(`agreed: ${title}`, async (t) => {
    const session = await openSession(t, app)
    const client = await openTunnelOn(session, `/${path}/${newChannel()}`, { ...parts, headers: { ...parts.headers, 'x-id': 'a' } })
    const answer = await client.head()
    t.same(namesOf(answer), [...new Set([':status', 'date', ...(kind === 'packet' ? ['spanza-max-packet'] : []), ...Object.keys(headers)])].sort())
    for (const [name, value] of Object.entries(headers)) t.equal(answer[name], value, name)
    const peer = peerOf(app, 'a')!
    t.equal(peer.framing, framing)
    t.equal(peer.channel.kind, kind)
    const gone = left(app, 'a')
    session.destroy()
    await gone
  })
}

interface Refused {
  path?: string
  parts?: ConnectParts
  status: number
  /** None for what does not concern the relay. */
  code?: RelayErrorCode
  headers?: Record<string, string>
}

const refusals: Record<string, Refused> = {
  'an unknown :protocol': { parts: { protocol: 'chat' }, status: 501, code: 'FST_RELAY_CONNECT_PROTOCOL' },
  'a :protocol of HTTP/1.1 only': { parts: { protocol: 'UoTLV/1' }, status: 501, code: 'FST_RELAY_CONNECT_PROTOCOL' },
  'a :protocol that this route does not take': { path: '/spanza-only', status: 501, code: 'FST_RELAY_CONNECT_PROTOCOL' },
  'no WebSocket version': {
    parts: { headers: { 'sec-websocket-version': undefined } }, status: 426, code: 'FST_RELAY_WEBSOCKET_VERSION', headers: { 'sec-websocket-version': '13' }
  },
  'another WebSocket version': {
    parts: { headers: { 'sec-websocket-version': '8' } }, status: 426, code: 'FST_RELAY_WEBSOCKET_VERSION', headers: { 'sec-websocket-version': '13' }
  },
  'an unknown subprotocol': { parts: { headers: { 'sec-websocket-protocol': 'chat' } }, status: 400, code: 'FST_RELAY_SUBPROTOCOL' },
  'a subprotocol that this route does not have': {
    path: '/raw-only/x', parts: { headers: { 'sec-websocket-protocol': 'spanza.v1' } }, status: 400, code: 'FST_RELAY_SUBPROTOCOL'
  },
  'an unknown framing': { parts: { protocol: 'spanza', headers: { 'spanza-framing': 'slip' } }, status: 400, code: 'FST_RELAY_FRAMING' },
  'a bare stream where there are only datagrams': { path: '/datagrams-only/x', parts: { protocol: 'spanza' }, status: 400, code: 'FST_RELAY_FRAMING' },
  'a Host header that differs from :authority': { parts: { headers: { ':authority': 'localhost', host: 'elsewhere.example' } }, status: 400, code: 'FST_RELAY_HOST_HEADER' },
  'a content-length': { parts: { headers: { 'content-length': '0' } }, status: 400, code: 'FST_RELAY_BODY' },
  'a host of somebody else': { path: '/hosts', status: 421, code: 'FST_RELAY_HOST_NOT_ALLOWED' },
  'a page of another origin': { parts: { headers: { origin: 'http://evil.example' } }, status: 403, code: 'FST_RELAY_ORIGIN_NOT_ALLOWED' },
  'a page of no origin': { parts: { headers: { origin: 'null' } }, status: 403, code: 'FST_RELAY_ORIGIN_NOT_ALLOWED' },
  'a page of the same host and another scheme': {
    parts: { headers: { ':authority': 'relay.example', origin: 'https://relay.example' } }, status: 403, code: 'FST_RELAY_ORIGIN_NOT_ALLOWED'
  },
  'a page that is not listed': { path: '/origins', parts: { headers: { origin: 'http://localhost' } }, status: 403, code: 'FST_RELAY_ORIGIN_NOT_ALLOWED' },
  'a path that is no route': { path: '/nowhere', status: 404 },
  'a path that is another route': { path: '/alive', status: 404 }
}

for (const [title, { path = '/relay/refused', parts, status, code, headers = {} }] of Object.entries(refusals)) {
  t.test(`refused: ${title}`, async (t) => {
    const session = await openSession(t, app)
    const before = app.relayHub.stats()
    const told = refusalsOf(app)
    const answer = await connectStream(session, path, parts).answer()
    t.equal(Number(answer.statusCode), status)
    t.notOk('connection' in answer.headers || 'upgrade' in answer.headers, 'no header that HTTP/2 forbids')
    for (const [name, value] of Object.entries(headers)) t.equal(answer.headers[name], value, name)
    if (code === undefined) {
      t.same(app.relayHub.stats(), before, 'not counted: it was not for the relay')
    } else {
      t.match(JSON.parse(answer.body), { statusCode: status, code })
      await until(() => told.length > 0)
      t.match(told, [{ statusCode: status, code }], 'told once')
      const { attached, refused } = app.relayHub.stats()
      t.equal(attached, before.attached, 'nothing is attached')
      t.same(refused, { ...before.refused, [code]: (before.refused[code] ?? 0) + 1 }, 'counted once')
    }
    t.equal((await request(session, { ':path': '/alive' })).body, 'alive', 'the session goes on')
  })
}

const origins: Record<string, [path: string, parts: ConnectParts]> = {
  'of the same origin': ['/relay/x', { headers: { ':authority': 'relay.example:80', origin: 'http://relay.example' } }],
  'that is listed': ['/origins', { headers: { origin: 'https://app.example' } }]
}

for (const [title, [path, parts]] of Object.entries(origins)) {
  t.test(`a page ${title} opens a WebSocket`, async (t) => {
    const session = await openSession(t, app)
    await openTunnelOn(session, path, parts)
  })
}

t.test('a bare tunnel may come from any origin', async (t) => {
  const session = await openSession(t, app)
  await openTunnelOn(session, `/relay/${newChannel()}`, { protocol: 'spanza', headers: { origin: 'http://evil.example' } })
})

const whole = connectHeaders('/relay/malformed')
const without = (name: string): HeaderList => whole.filter(([each]) => each !== name)
const withField = (...field: [string, string]): HeaderList => [...whole, field]

const malformed: Record<string, HeaderList> = {
  'without :scheme': without(':scheme'),
  'without :path': without(':path'),
  'without :scheme and :path, but with :protocol': without(':scheme').filter(([name]) => name !== ':path'),
  'without :method': without(':method'),
  'with :protocol in a GET': [[':method', 'GET'], ...without(':method')],
  'with :protocol twice': [[':protocol', 'websocket'], ...whole],
  'with an empty :path': [[':path', ''], ...without(':path')],
  'with a pseudo-header behind a header': withField(':protocol', 'websocket'),
  'with an unknown pseudo-header': [[':upgrade', 'websocket'], ...whole],
  'with Connection: Upgrade': withField('connection', 'Upgrade'),
  'with Upgrade': withField('upgrade', 'websocket'),
  'with Transfer-Encoding': withField('transfer-encoding', 'chunked'),
  'with a header in upper case': withField('X-Id', 'a'),
  'with an empty :protocol': [[':protocol', ''], ...without(':protocol')],
  'with the path *': [[':path', '*'], ...without(':path')],
  'without :authority': without(':authority'),
  'with Host in place of :authority': [...without(':authority'), ['host', 'localhost']]
}

for (const [title, headers] of Object.entries(malformed)) {
  t.test(`a request ${title} gets no tunnel, and the session goes on`, async (t) => {
    const session = await RawSession.open(t, app)
    const { attached } = app.relayHub.stats()
    const stream = session.request(headers)
    await until(() => stream.isOver || stream.status !== undefined)
    if (stream.status === undefined) t.equal(errorCodes[stream.resetCode!], 'PROTOCOL_ERROR')
    else t.ok(stream.status >= 400 && stream.status < 500, `answered ${stream.status}`)
    t.equal(app.relayHub.stats().attached, attached, 'nothing is attached')
    t.equal(await session.request(connectHeaders(`/relay/${newChannel()}`)).answer(), 200)
  })
}

t.test('a header with a line break in its value is no header', async (t) => {
  const session = await RawSession.open(t, app)
  await session.connect(`/relay/${newChannel()}`, 'websocket', { 'x-id': 'a\r\nx-other: b' })
  t.notOk(app.relayHub.peers().some(({ id }) => id.startsWith('a')))
})

t.test('a plain CONNECT, with or without a port, is not allowed', async (t) => {
  const session = await RawSession.open(t, app)
  const before = app.relayHub.stats()
  t.equal(await session.request([[':method', 'CONNECT'], [':authority', 'localhost:80']]).answer(), 405)
  const client = await openSession(t, app)
  const answer = await request(client, { ':method': 'CONNECT', ':authority': 'relay.example:443' }, '')
  t.equal(Number(answer.statusCode), 405)
  t.equal(answer.headers['allow'], 'GET')
  t.same(app.relayHub.stats(), before, 'it is no handshake')
})

t.test('a hook refuses without content', async (t) => {
  const session = await RawSession.open(t, app)
  const stream = session.request(connectHeaders('/empty-403'))
  t.equal(await stream.answer(), 403)
  await until(() => stream.isOver)
  t.ok(stream.hasEnded)
  t.equal(stream.unread.length, 0)
  t.ok(app.relayHub.stats().refused['403']! > 0, 'counted by its status')
})

t.test('a hook refuses with content', async (t) => {
  const session = await openSession(t, app)
  const { statusCode, headers, body } = await connectStream(session, '/body-401').answer()
  t.equal(Number(statusCode), 401)
  t.equal(headers['www-authenticate'], 'Bearer')
  t.same(JSON.parse(body), { error: 'who are you?' })
})

t.test('hooks see a CONNECT, and what they set is in the answer unless the relay or HTTP/2 has a say in it', async (t) => {
  const session = await openSession(t, app)
  const path = `/hook-headers/${newChannel()}`
  const client = await openTunnelOn(session, path)
  const answer = await client.head()
  t.same(namesOf(answer), [':status', 'date', 'set-cookie', 'spanza-max-packet', 'x-seen', 'x-upper'])
  t.match(answer, { 'x-seen': `CONNECT ${path} of 127.0.0.1`, 'x-upper': 'one', 'set-cookie': ['a=1', 'b=2'] })
})

t.test('hooks, REST and tunnels share path and session', async (t) => {
  const session = await openSession(t, app)
  const path = `/relay/${newChannel()}`
  const from = await openTunnelOn(session, path)
  const to = await openTunnelOn(session, path)
  const [plain, posted, refused] = await Promise.all([
    request(session, { ':path': path }),
    request(session, { ':path': path, ':method': 'POST', 'content-type': 'text/plain' }, 'posted'),
    connectStream(session, '/body-401').answer()
  ])
  t.equal(plain.body, 'a plain answer')
  t.same(JSON.parse(posted.body), { body: 'posted' })
  t.equal(Number(refused.statusCode), 401)
  from.send(message('a datagram'))
  t.equal(String(await readMessage(to)), 'a datagram')
})

t.test('what a client sends before the answer is not lost', async (t) => {
  const session = await RawSession.open(t, app)
  const path = `/gate/${newChannel()}`
  gate = createGate()
  const early = session.request(connectHeaders(path))
  await early.send(message('sent early'))
  await gate.reached
  await session.roundTrip()
  // The other one is to be there first.
  const hold = gate
  gate = createGate()
  gate.open()
  const to = await session.connect(path)
  hold.open()
  t.equal(await early.answer(), 200)
  t.equal(String(await readMessage(to)), 'sent early')
})

t.test('a client that leaves while hooks run is counted as gone', async (t) => {
  const session = await openSession(t, app)
  gate = createGate()
  const told = refusalsOf(app)
  const client = connectStream(session, `/gate/${newChannel()}`)
  await gate.reached
  client.stream.close(8)
  await until(() => told.length > 0)
  gate.open()
  t.match(told, [{ statusCode: 499, code: 'FST_RELAY_CLIENT_GONE' }])
  t.equal((await request(session, { ':path': '/alive' })).body, 'alive')
})

t.test('the answer to a handshake comes while the one before it waits', async (t) => {
  const session = await openSession(t, app)
  gate = createGate()
  const waiting = connectStream(session, `/gate/${newChannel()}`)
  await gate.reached
  await openTunnelOn(session, `/relay/${newChannel()}`)
  gate.open()
  t.equal(Number((await waiting.head())[':status']), 200)
})

t.test('a third tunnel of a pair is refused', async (t) => {
  const session = await openSession(t, app)
  const path = `/relay/${newChannel()}`
  await openTunnelOn(session, path, { protocol: 'spanza' })
  await openTunnelOn(session, path, { protocol: 'spanza' })
  const { statusCode, body } = await connectStream(session, path, { protocol: 'spanza' }).answer()
  t.equal(Number(statusCode), 409)
  t.match(JSON.parse(body), { code: 'FST_RELAY_CHANNEL_PAIRED' })
})

for (const protocol of ['websocket', 'spanza']) {
  t.test(`a request for ${protocol} that ends its stream at once is answered, and leaves`, async (t) => {
    const session = await RawSession.open(t, app)
    const gone = left(app, 'a')
    const stream = session.request(connectHeaders(`/relay/${newChannel()}`, protocol, { 'x-id': 'a' }), true)
    t.equal(await stream.answer(), 200)
    await gone
    await until(() => stream.isOver)
    t.equal(await session.request(connectHeaders(`/relay/${newChannel()}`)).answer(), 200, 'the session goes on')
  })
}

t.test('a request that ends its stream at once and is refused is counted as what it is', async (t) => {
  const session = await RawSession.open(t, app)
  for (let i = 0; i < 20; i++) {
    const told = refusalsOf(app)
    t.equal(await session.request(connectHeaders('/body-401'), true).answer(), 401)
    await until(() => told.length > 0)
    t.match(told, [{ statusCode: 401 }])
  }
})

t.test('a request with 30,000 bytes of headers, in several frames, is answered', async (t) => {
  const session = await openSession(t, app)
  const many = Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`x-${index}`, 'x'.repeat(1000)]))
  await openTunnelOn(session, `/relay/${newChannel()}`, { headers: many })
})

t.test('a request with more headers than the server takes gets no tunnel', async (t) => {
  const { attached } = app.relayHub.stats()
  for (const count of [70, 200]) {
    const session = await openSession(t, app)
    const many = Object.fromEntries(Array.from({ length: count }, (_, index) => [`x-${index}`, 'x'.repeat(1000)]))
    const client = connectStream(session, `/relay/${newChannel()}`, { headers: many })
    await client.closed
    t.notMatch(await client.head().catch(() => ({ ':status': 'none' })), { ':status': 200 })
  }
  t.equal(app.relayHub.stats().attached, attached)
  const session = await openSession(t, app)
  t.equal((await request(session, { ':path': '/alive' })).body, 'alive', 'the server goes on')
})

t.test('permessage-deflate', async (t) => {
  const offer = { 'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits' }

  await t.test('is not agreed on unless the route has it', async (t) => {
    const session = await openSession(t, app)
    const client = await openTunnelOn(session, `/relay/${newChannel()}`, { headers: offer })
    t.notOk('sec-websocket-extensions' in await client.head())
  })

  await t.test('is not agreed on unless the client offers it', async (t) => {
    const session = await openSession(t, app)
    for (const headers of [{}, { 'sec-websocket-extensions': 'bbf-usp-protocol' }, { 'sec-websocket-extensions': 'permessage-deflate; server_max_window_bits=99' }]) {
      const client = await openTunnelOn(session, `/deflate/${newChannel()}`, { headers })
      t.notOk('sec-websocket-extensions' in await client.head())
    }
  })

  await t.test('is agreed on where both want it, and what comes compressed is passed on as it was', async (t) => {
    const { deflateRawSync, constants } = await import('node:zlib')
    const session = await openSession(t, app)
    const path = `/deflate/${newChannel()}`
    const from = await openTunnelOn(session, path, { headers: offer })
    t.match((await from.head())['sec-websocket-extensions'], /^permessage-deflate/)
    const to = await openTunnelOn(session, path)
    const datagram = Buffer.alloc(1000, 'again and ')
    const compressed = deflateRawSync(datagram, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4)
    t.ok(compressed.length < 100)
    from.send(frame(opcodes.BINARY, compressed, { reserved: 4 }))
    t.same(await readMessage(to), datagram)
    to.send(message(datagram))
    t.same(await readMessage(from), datagram, 'the relay itself does not compress')
  })
})
