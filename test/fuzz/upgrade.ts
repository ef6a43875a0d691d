import assert from 'node:assert/strict'
import type { Server } from 'node:http'
import { setImmediate, setTimeout } from 'node:timers/promises'
import fc, { type Arbitrary } from 'fast-check'
import type { FastifyHttpOptions, FastifyInstance } from 'fastify'
import { startApp } from '../helpers/relay-app.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'
import { anyBytes, chunking, cut, datagram, mutate, mutation, type Chunking } from './arbitraries.ts'
import { Scope, type Fuzz } from './fuzz.ts'

/** Of Node's own deadlines, so that a connection on which nothing whole has come is closed soon. */
const HEADERS_TIMEOUT = 200
/** A connection that has neither an answer nor an end by then never gets one. */
const PATIENCE_MS = 10_000

/** Time for a client to leave, or to send more, before its answer. */
const SLOW_MS = 10

const CRLF = '\r\n'

const method = fc.oneof(
  { weight: 12, arbitrary: fc.constant('GET') },
  { weight: 2, arbitrary: fc.constantFrom('POST', 'HEAD', 'OPTIONS', 'CONNECT', 'PUT', 'PRI', 'get', 'QUERY', '') }
)
const target = fc.oneof(
  { weight: 10, arbitrary: fc.constantFrom('/relay/home', '/slow/home', '/rest', '/slow-rest', '/echo') },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      '/relay', '/relay/', '/relay//', '/relay/%', '/relay/%ff', '/relay/%2f%00', '/relay/..', '/relay/home?a=b', '/RELAY/home', '//relay/home',
      'http://localhost/relay/home', '*', 'localhost:443', '/relay/home#x', '?', '/relay/' + 'a'.repeat(3000), '/nowhere')
  },
  { weight: 1, arbitrary: anyBytes(12).map((bytes) => `/relay/${bytes.toString('latin1').replace(/[\s]/g, '')}`) }
)
const version = fc.oneof({ weight: 12, arbitrary: fc.constant('1.1') }, { weight: 1, arbitrary: fc.constantFrom('1.0', '0.9', '2.0', '1.2', '1', '') })

/** The header lines of an upgrade, each at its best, left out, or not as it should be. */
const usual = [
  line('Host', ['localhost', 'relay.example.com:8443', '[::1]:80', '', 'a, b', 'a b', 'ä', 'a'.repeat(300)]),
  line('Connection', ['Upgrade', 'keep-alive, Upgrade', 'upgrade', 'close', 'Upgrade, close', ',', 'Upgrade,Upgrade', 'HTTP2-Settings']),
  line('Upgrade', ['spanza', 'UoTLV/1', 'SPANZA', 'h2c, spanza', 'websocket', 'spanza/1, spanza', ',', '', '/', 'h2c', ',spanza'.repeat(500)]),
  line('Spanza-Framing', ['wg', 'len16', 'raw', 'wg, len16', 'LEN16', 'x, y', '', ',', 'wg;q=1', ',x'.repeat(2000)])
]
const further = fc.constantFrom(
  'Content-Length: 0', 'Content-Length: 5', 'Content-Length: -1', 'Content-Length: 99999999999999999999', 'Content-Length: 0, 0', 'Content-Length:',
  'Transfer-Encoding: chunked', 'Transfer-Encoding: gzip, chunked', 'Transfer-Encoding: x', 'Expect: 100-continue', 'Expect: the unexpected',
  'X-Forwarded-For: 192.0.2.1', 'X-Forwarded-For: , ,', 'X-Forwarded-For: fe80::1%eth0', 'X-Forwarded-For: 999.1.1.1:80', 'Forwarded: for="[2001:db8::1]:80"',
  'X-Forwarded-Host: a, b', 'X-Forwarded-Proto: https', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA',
  'Host: second', 'Upgrade: websocket', 'Connection: close', ' folded', '\tfolded', ': no name', 'no colon', 'na me: x', 'X-Null: \0', 'X-Latin: \xff',
  '__proto__: x', 'constructor: x', 'Content-Type: application/json', 'Authorization: Bearer x', 'Keep-Alive: timeout=5', `X-Long: ${'x'.repeat(9000)}`)

function line (name: string, [best, ...others]: string[]): Arbitrary<readonly string[]> {
  return fc.oneof<Array<fc.WeightedArbitrary<readonly string[]>>>(
    { weight: 8, arbitrary: fc.constant([`${name}: ${best}`]) },
    { weight: 1, arbitrary: fc.constant([]) },
    { weight: 2, arbitrary: fc.constantFrom(...others).map((value) => [`${name}: ${value}`]) },
    { weight: 1, arbitrary: fc.constantFrom(...others).map((value) => [`${name.toLowerCase()}: ${best}`, `${name.toUpperCase()}: ${value}`]) },
    { weight: 1, arbitrary: fc.constantFrom(`${name}:${best}`, `${name} : ${best}`, ` ${name}: ${best}`, `${name}:\r\n ${best}`, `${name}: ${best}\t`).map((line) => [line]) }
  )
}

/** The bytes of one request that asks for an upgrade, more or less. */
const request: Arbitrary<Buffer> = fc.record({
  method,
  target,
  version,
  lines: fc.tuple(...usual, fc.array(further, { maxLength: 2 }) as Arbitrary<readonly string[]>).map((lines) => lines.flat()),
  order: fc.boolean(),
  eol: fc.oneof({ weight: 15, arbitrary: fc.constant(CRLF) }, { weight: 1, arbitrary: fc.constantFrom('\n', '\r', '\r\n\r\n') }),
  rest: fc.oneof(
    { weight: 3, arbitrary: fc.constant(Buffer.alloc(0)) },
    { weight: 1, arbitrary: datagram },
    { weight: 1, arbitrary: fc.constantFrom('5\r\nhello\r\n0\r\n\r\n', '0\r\n\r\n', 'hello', '\r\n', requestText('/rest')).map((text) => Buffer.from(text)) },
    { weight: 1, arbitrary: anyBytes(8) }
  )
}).map(({ method, target, version, lines, order, eol, rest }) => Buffer.concat([
  Buffer.from([`${method} ${target} HTTP/${version}`, ...(order ? lines : lines.toReversed()), '', ''].join(eol), 'latin1'), rest
]))

interface Attempt {
  bytes: Buffer
  chunking: Chunking
  /** What the client does when it has sent everything. */
  then: 'stay' | 'end' | 'break'
}

const inserted = fc.oneof(
  anyBytes(4),
  fc.constantFrom('\r\n', '\n', '\r', '\0', ' ', '\t', ':', ',', '\r\n ', '\r\n\r\n', 'Upgrade: h2c\r\n', 'Host: x\r\n').map((text) => Buffer.from(text))
)

const attempt: Arbitrary<Attempt> = fc.record({
  bytes: fc.tuple(
    // Now and then behind a request whose answer is still to come.
    fc.tuple(fc.constantFrom('', '', '', requestText('/slow-rest')), fc.array(request, { minLength: 1, maxLength: 2 }))
      .map(([first, requests]) => Buffer.concat([Buffer.from(first), ...requests])),
    fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: fc.array(mutation(inserted), { minLength: 1, maxLength: 3 }) })
  ).map(([bytes, mutations]) => mutate(bytes, mutations)),
  chunking,
  then: fc.oneof({ weight: 4, arbitrary: fc.constant('stay') }, { weight: 1, arbitrary: fc.constantFrom('end', 'break') })
})

/** Longer strings of small chunks would take their time, and are no different. */
const MAX_CHUNKS = 60

/** Sends what the attempt says, and waits for an answer or the end. */
async function make (scope: Scope, app: FastifyInstance, { bytes, chunking, then }: Attempt): Promise<void> {
  const client = await RawClient.dial(scope.asTest, app)
  const chunks = cut(bytes, chunking)
  for (const chunk of [...chunks.slice(0, MAX_CHUNKS), Buffer.concat(chunks.slice(MAX_CHUNKS))]) {
    if (!client.socket.writable) break
    // It may be answered, and closed, before all of it is sent.
    await client.send(chunk).catch(() => {})
    await setImmediate()
  }
  if (then === 'break') {
    client.socket.resetAndDestroy()
    return
  }
  if (then === 'end') client.socket.end()
  let isOver = false
  client.closed.then(() => { isOver = true })
  const deadline = performance.now() + PATIENCE_MS
  await until(() => isOver || client.unread.includes(CRLF + CRLF) || performance.now() > deadline)
  const answer = client.unread
  client.socket.destroy()
  assert.ok(isOver || answer !== '', 'neither answered nor closed')
  if (answer === '') return
  const status = /^HTTP\/1\.1 ([1-5]\d\d) [^\r\n]*\r\n/.exec(answer)?.[1]
  assert.ok(status !== undefined, `no answer: ${answer.slice(0, 200)}`)
  assert.notEqual(status, '500', answer.slice(0, 1000))
  if (status === '101') assert.match(answer, /^(?:Connection: Upgrade\r\nUpgrade: (?:spanza|UoTLV\/1|websocket)|Upgrade: websocket\r\nConnection: Upgrade)\r\n/m)
}

async function startRelay (scope: Scope, insecureHTTPParser: boolean): Promise<FastifyInstance> {
  return await startApp(scope.asTest, (app) => {
    app.relay('/relay/:network')
    app.relay('/slow/:network', { onRequest: async () => { await setTimeout(SLOW_MS) }, identify: async () => await setTimeout(SLOW_MS, {}) })
    app.get('/rest', async () => ({ ok: true }))
    app.get('/slow-rest', async () => {
      await setTimeout(SLOW_MS)
      return { ok: true }
    })
    app.post('/echo', async (request) => request.body ?? null)
  }, {
    // The limits per client address are not what is looked at here.
    relay: { handshakesPerSecond: 1e6, maxUnfinishedHandshakes: 1e6, handshakeTimeout: 1000 },
    server: {
      trustProxy: true,
      http: { headersTimeout: HEADERS_TIMEOUT, requestTimeout: HEADERS_TIMEOUT, connectionsCheckingInterval: 50, keepAliveTimeout: 100, insecureHTTPParser }
    } as FastifyHttpOptions<Server>
  })
}

function upgradeRequests (name: string, title: string, insecureHTTPParser: boolean): Fuzz {
  return {
    name,
    title,
    runs: 30,
    prepare: async (outer) => {
      const app = await startRelay(outer, insecureHTTPParser)
      return fc.asyncProperty(fc.array(attempt, { minLength: 1, maxLength: 6 }), async (attempts) => {
        const scope = new Scope()
        try {
          await Promise.all(attempts.map((attempt) => make(scope, app, attempt)))
          const rest = await RawClient.dial(scope.asTest, app)
          await rest.send(requestText('/rest'))
          assert.match((await rest.head()).head, /^HTTP\/1\.1 200 OK\r\n/)
          const tunnel = await openTunnel(scope.asTest, app, { path: '/relay/afterwards' })
          await tunnel.roundTrip()
        } finally {
          await scope.end()
        }
        await until(() => app.relayHub.stats().peers === 0)
      })
    }
  }
}

export const upgradeFuzzes: Fuzz[] = [
  upgradeRequests('upgrade-requests', 'whatever comes before the 101, it is answered or closed, and the app goes on', false),
  upgradeRequests('upgrade-requests-insecure', 'the same where Node is lenient about what it reads', true)
]
