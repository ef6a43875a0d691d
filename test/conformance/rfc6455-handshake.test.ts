import { createHash, randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import websocket from '@fastify/websocket'
import t, { type Test } from 'tap'
import { lines, refused, testTable, type Expected, type Row } from '../helpers/handshake-table.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { startServer, type ServerOptions } from './server.ts'
import { deflateRawSync, constants } from 'node:zlib'
import { frame, message, opcodes, readMessage } from './websocket-frames.ts'

// The opening handshake of RFC 6455 (section 4.2), byte for byte, with the relay's own WebSocket server and with that of
// @fastify/websocket; who refuses is the relay in either case.

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
/** The example of section 1.3. */
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

/** A 101 with these headers, that of the largest datagram, and no others, behind which the WebSocket is open. */
function opened (headers: Record<string, string> = {}, accept = ACCEPT): Expected {
  return async ({ t, client }) => {
    const answer = await client.head()
    t.equal(answer.statusCode, 101)
    const { upgrade, connection, ...others } = answer.headers
    t.equal(upgrade, 'websocket')
    t.equal(connection, 'Upgrade')
    const isStream = headers['sec-websocket-protocol'] === 'spanza.raw.v1'
    t.same(others, { 'sec-websocket-accept': accept, ...(isStream ? {} : { 'spanza-max-packet': '65535' }), ...headers })
    await client.send(frame(opcodes.PING, 'hello', { mask: Buffer.alloc(4) }))
    t.equal((await client.read(7)).toString('latin1'), '\x8a\x05hello', 'and frames are understood')
    client.socket.destroy()
  }
}

/** Not a WebSocket, but a bare tunnel. */
const bare: Expected = async ({ t, client }) => {
  const answer = await client.head()
  t.equal(answer.statusCode, 101)
  t.notOk('sec-websocket-accept' in answer.headers)
  client.socket.destroy()
}

interface Parts {
  path?: string
  host?: string
  /** undefined: left out. */
  key?: string | undefined
  version?: string | undefined
  upgrade?: string
  connection?: string
  more?: string[]
}

function ask ({ path = '/relay/handshake', host = 'relay.example', upgrade = 'websocket', connection = 'Upgrade', more = [], ...rest }: Parts = {}): string {
  const { key, version } = { key: KEY, version: '13', ...rest }
  return lines(
    `GET ${path} HTTP/1.1`, `Host: ${host}`, `Connection: ${connection}`, `Upgrade: ${upgrade}`,
    ...(key === undefined ? [] : [`Sec-WebSocket-Key: ${key}`]),
    ...(version === undefined ? [] : [`Sec-WebSocket-Version: ${version}`]),
    ...more
  )
}

const otherKey = randomBytes(16).toString('base64')
const acceptOf = (key: string): string => createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64')
const all = { upgrade: 'spanza, UoTLV/1, websocket', connection: 'close, upgrade' }
const badVersion = refused(426, 'FST_RELAY_WEBSOCKET_VERSION', undefined, { ...all, 'sec-websocket-version': '13' })
const badKey = refused(400, 'FST_RELAY_WEBSOCKET_KEY')
const badOrigin = refused(403, 'FST_RELAY_ORIGIN_NOT_ALLOWED')
const noSubprotocol = refused(400, 'FST_RELAY_SUBPROTOCOL')

const rows: Row[] = [
  ['the example of the RFC', ask(), opened()],
  ['any key of 16 bytes', ask({ key: otherKey }), opened({}, acceptOf(otherKey))],
  ['an upgrade token in other letters', ask({ upgrade: 'WebSocket' }), opened()],
  ['websocket among other tokens', ask({ upgrade: 'h2c, websocket' }), opened()],
  ['Connection: keep-alive, Upgrade', ask({ connection: 'keep-alive, Upgrade' }), opened()],
  ['Connection: upgrade', ask({ connection: 'upgrade' }), opened()],
  ['two lines of Connection', ask({ connection: 'keep-alive', more: ['Connection: Upgrade'] }), opened()],

  ['no version', ask({ version: undefined }), badVersion],
  ['version 8', ask({ version: '8' }), badVersion],
  ['version 0', ask({ version: '0' }), badVersion],
  ['version 013', ask({ version: '013' }), badVersion],
  ['version 13, 8', ask({ version: '13, 8' }), badVersion],
  ['two lines of the version', ask({ more: ['Sec-WebSocket-Version: 8'] }), badVersion],

  ['an empty key', ask({ key: '' }), badKey],
  ['a key of 15 bytes', ask({ key: randomBytes(15).toString('base64') }), badKey],
  ['a key of 17 bytes', ask({ key: randomBytes(17).toString('base64') }), badKey],
  ['a key without padding', ask({ key: KEY.slice(0, -2) }), badKey],
  ['a key that is not base64', ask({ key: '!'.repeat(22) + '==' }), badKey],
  ['a key in base64url', ask({ key: '-_'.repeat(11) + '==' }), badKey],
  ['two keys', ask({ more: [`Sec-WebSocket-Key: ${otherKey}`] }), badKey],
  ['no key: the HTTPUpgrade transport', ask({ key: undefined }), bare],
  ['no key, whatever the version and the origin', ask({ key: undefined, version: '8', more: ['Origin: http://evil.example'] }), bare],

  ['no origin', ask(), opened()],
  ['the origin of the request', ask({ more: ['Origin: http://relay.example'] }), opened()],
  ['the origin of the request, with the port of its scheme', ask({ host: 'relay.example:80', more: ['Origin: http://relay.example'] }), opened()],
  ['the origin of the request, with a port', ask({ host: 'relay.example:8080', more: ['Origin: http://relay.example:8080'] }), opened()],
  ['the host in other letters', ask({ host: 'Relay.Example', more: ['Origin: http://relay.example'] }), opened()],
  ['another host', ask({ more: ['Origin: http://evil.example'] }), badOrigin],
  ['another port', ask({ more: ['Origin: http://relay.example:8080'] }), badOrigin],
  ['another scheme', ask({ more: ['Origin: https://relay.example'] }), badOrigin],
  ['a host that begins alike', ask({ more: ['Origin: http://relay.example.evil.example'] }), badOrigin],
  ['the origin null', ask({ more: ['Origin: null'] }), badOrigin],
  ['an empty origin', ask({ more: ['Origin:'] }), badOrigin],
  ['an origin with a path', ask({ more: ['Origin: http://relay.example/path'] }), badOrigin],
  ['an origin with a user', ask({ more: ['Origin: http://relay.example@evil.example'] }), badOrigin],
  ['a listed origin', ask({ path: '/origins', more: ['Origin: https://app.example'] }), opened()],
  ['an origin that is not listed', ask({ path: '/origins', more: ['Origin: http://relay.example'] }), badOrigin],
  ['an untrusted sender that names the host the page is of', ask({
    more: ['Origin: https://public.example', 'X-Forwarded-Host: public.example', 'X-Forwarded-Proto: https']
  }), badOrigin],

  ['the subprotocol spanza.v1', ask({ more: ['Sec-WebSocket-Protocol: spanza.v1'] }), opened({ 'sec-websocket-protocol': 'spanza.v1' })],
  ['the subprotocol spanza.raw.v1', ask({ more: ['Sec-WebSocket-Protocol: spanza.raw.v1'] }), opened({ 'sec-websocket-protocol': 'spanza.raw.v1' })],
  ['several subprotocols, the first known one of which is taken', ask({ more: ['Sec-WebSocket-Protocol: chat, spanza.raw.v1,spanza.v1'] }), opened({ 'sec-websocket-protocol': 'spanza.raw.v1' })],
  ['several lines of subprotocols', ask({ more: ['Sec-WebSocket-Protocol: chat', 'Sec-WebSocket-Protocol: spanza.v1'] }), opened({ 'sec-websocket-protocol': 'spanza.v1' })],
  ['subprotocols of which the route has one', ask({ path: '/datagrams-only/x', more: ['Sec-WebSocket-Protocol: spanza.raw.v1, spanza.v1'] }), opened({ 'sec-websocket-protocol': 'spanza.v1' })],
  ['an unknown subprotocol', ask({ more: ['Sec-WebSocket-Protocol: chat'] }), noSubprotocol],
  ['a subprotocol in other letters', ask({ more: ['Sec-WebSocket-Protocol: SPANZA.V1'] }), noSubprotocol],
  ['a subprotocol that the route does not have', ask({ path: '/raw-only/x', more: ['Sec-WebSocket-Protocol: spanza.v1'] }), noSubprotocol],

  ['permessage-deflate, which is not agreed on', ask({ more: ['Sec-WebSocket-Extensions: permessage-deflate'] }), opened()],
  ['what hooks have set, but what is not theirs to say', ask({ path: '/hook-headers/x' }), async (exchange) => {
    await opened({ 'x-seen': 'GET /hook-headers/x of 127.0.0.1', 'x-upper': 'one', 'set-cookie': 'a=1, b=2' })(exchange)
  }],
  ['a protocol that the route does not take', ask({ path: '/spanza-only' }), refused(400, 'FST_RELAY_PROTOCOL', undefined, { ...all, upgrade: 'spanza' })],
  ['a host that is not of the route', ask({ path: '/hosts', host: 'other.example' }), refused(421, 'FST_RELAY_HOST_NOT_ALLOWED')]
]

const servers: Record<string, ServerOptions> = {
  'the relay\'s own server': { server: {} },
  'the server of @fastify/websocket': { server: {}, setUp: async (app) => { await app.register(websocket as never) } }
}

for (const [name, options] of Object.entries(servers)) {
  t.test(name, async (t) => {
    await testTable(t, await startServer(t, options), rows)
  })
}

t.test('behind a trusted proxy, the page\'s origin is that of the proxy\'s public address', async (t) => {
  const app = await startServer(t, { server: { trustProxy: true } })
  const forwarded = ['X-Forwarded-Host: public.example', 'X-Forwarded-Proto: https']
  await testTable(t, app, [
    ['the public origin', ask({ more: [...forwarded, 'Origin: https://public.example'] }), opened()],
    ['the public host with another scheme', ask({ more: [...forwarded, 'Origin: http://public.example'] }), badOrigin],
    ['the inner origin', ask({ more: [...forwarded, 'Origin: http://relay.example'] }), badOrigin],
    ['no forwarding headers', ask({ more: ['Origin: http://relay.example'] }), opened()]
  ])
})

t.test('what a client sends together with its request is read behind the handshake', async (t) => {
  for (const options of Object.values(servers)) {
    const app = await startServer(t, options)
    const early = await RawClient.dial(t, app)
    const to = await RawClient.dial(t, app)
    await to.send(ask())
    t.equal((await to.head()).statusCode, 101)
    await early.send(Buffer.concat([Buffer.from(ask()), message('sent early')]))
    t.equal((await early.head()).statusCode, 101)
    t.equal(String(await readMessage(to)), 'sent early')
  }
})

t.test('a plain GET of a relay route is not upgraded, and the connection goes on', async (t) => {
  const app = await startServer(t, servers['the server of @fastify/websocket'])
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/relay/x'))
  t.equal((await client.answer()).body, 'a plain answer')
  await client.send(requestText('/alive'))
  t.equal((await client.answer()).body, 'alive')
})

t.test('permessage-deflate is agreed on where the route has it, and what comes compressed is passed on as it was', async (t) => {
  const app = await startServer(t, { server: {} })
  const open = async (t: Test, app: FastifyInstance, headers: Record<string, string>): Promise<[RawClient, string | undefined]> => {
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/deflate/x', { headers: { Upgrade: 'websocket', 'Sec-WebSocket-Key': KEY, 'Sec-WebSocket-Version': '13', ...headers } }))
    return [client, (await client.head()).headers['sec-websocket-extensions']]
  }
  const [from, agreed] = await open(t, app, { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' })
  t.match(agreed, /^permessage-deflate/)
  const [to, notAgreed] = await open(t, app, {})
  t.equal(notAgreed, undefined)
  const datagram = Buffer.alloc(1000, 'again and ')
  const compressed = deflateRawSync(datagram, { finishFlush: constants.Z_SYNC_FLUSH }).subarray(0, -4)
  await from.send(frame(opcodes.BINARY, compressed, { reserved: 4 }))
  t.ok((await readMessage(to)).equals(datagram))
  await to.send(message(datagram))
  t.ok((await readMessage(from)).equals(datagram))
})
