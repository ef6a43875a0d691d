import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { until } from '../helpers/tunnel.ts'
import { chunksOf, sha256 } from './bytes.js'
import { HOST, IDLE_MS, SHORT_TIMEOUT, startFront } from './front.js'

// What a tunnel must find behind any proxy. Where proxies differ, each one's table says what it does.

const MANY = 10 * 1024 * 1024
const EARLY = 64 * 1024
const TOKENS = ['spanza', 'UoTLV/1', 'websocket']

/**
 * @typedef {object} TunnelsOfProxy
 * @property {string} [skip] why it cannot be tested here
 * @property {Record<string, number>} [refuses] upgrade tokens that do not pass, and what is answered instead
 * @property {boolean | number} earlyData whether what follows the request at once arrives; a number: what may be answered to it instead
 * @property {{ client: boolean, other: boolean }} halfClose whether bytes still come to the client when it has ended its
 *   stream, and from it when the other side has
 * @property {boolean} cutsIdle whether its timeout ends a tunnel on which nothing is sent
 * @property {number | undefined} [strangersStatus] what it answers itself to a host name that it does not serve
 * @property {string} [seenAddress] what `request.ip` is, where the client's address gets lost
 *
 * @typedef {import('./front.js').ProxyInFront & TunnelsOfProxy} ProxyUnderTest
 */

/** Tests one proxy, with and without TLS. */
export function testProxy (t, proxy) {
  for (const isTls of [false, true]) {
    const { skip = false } = proxy
    t.test(`${proxy.name}, ${isTls ? 'TLS' : 'plain'}`, { skip }, async (t) => await testFront(t, proxy, isTls))
  }
}

/** Tests which upgrade tokens a proxy lets through. */
export function testTokens (t, proxy, isTls) {
  t.test(`upgrade tokens through ${proxy.name}`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    const { refuses = {} } = proxy
    for (const token of TOKENS) {
      const { statusCode, headers } = await front.ask({ token })
      t.equal(statusCode, refuses[token] ?? front.accepted, `${token} ${token in refuses ? 'does not pass' : 'passes'}`)
      if (statusCode === 101) t.equal(headers.upgrade, token)
    }
    t.equal(front.app.relayHub.stats().attached, TOKENS.length - Object.keys(refuses).length)
  })
}

async function testFront (t, proxy, isTls) {
  testTokens(t, proxy, isTls)

  t.test('our client: datagrams in wg, and a bare stream', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const [a, b] = [await front.connect('/relay/wg'), await front.connect('/relay/wg')]
    for (const [from, to] of [[a, b], [b, a]]) {
      const datagram = randomBytes(1300)
      const received = once(to, 'message')
      from.send(datagram)
      t.ok((await received)[0].equals(datagram))
    }
    t.equal(front.app.relayHub.peers().every(({ framing }) => framing === 'wg'), true)

    const stream = await front.connect('/relay/raw', { framings: 'raw' })
    const other = await front.open('/relay/raw')
    stream.write('there')
    t.equal(String(await other.read(5)), 'there')
    await other.send('back')
    t.equal(String((await once(stream, 'data'))[0]), 'back')
    stream.end()
  })

  const skip = proxy.refuses?.['UoTLV/1'] !== undefined && 'it does not pass'
  t.test('UoTLV/1, with a client of ours as the other peer', { skip }, async (t) => {
    const front = await startFront(t, proxy, isTls)
    const guard = await front.open('/relay/x', { token: 'UoTLV/1' })
    const other = await front.direct.connect('/relay/x')
    const datagram = randomBytes(1300)
    const received = once(other, 'message')
    await guard.send(Buffer.concat([Buffer.from([1300 >> 8, 1300 & 255]), datagram]))
    t.ok((await received)[0].equals(datagram))
    other.send(datagram)
    t.ok((await guard.read(1302)).subarray(2).equals(datagram))
  })

  t.test(`10 MB in both directions${proxy.bothWays === false ? ', one after the other' : ' at once'}`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    const ends = [await front.connect('/relay/x', { framings: 'raw' }), await front.connect('/relay/x', { framings: 'raw' })]
    const travel = async (from, to) => {
      const bytes = randomBytes(MANY)
      from.write(bytes)
      t.equal(sha256(await chunksOf(to, MANY)), sha256([bytes]))
    }
    const there = travel(...ends)
    if (proxy.bothWays === false) await there
    await Promise.all([there, travel(...ends.toReversed())])
  })

  t.test(`early data ${proxy.earlyData === true ? 'arrives' : proxy.earlyData === false ? 'is lost' : `may be answered with ${proxy.earlyData}`}`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    for (const token of ['spanza', ...(proxy.clientHttp === 2 ? [] : ['websocket'])].filter((token) => proxy.refuses?.[token] === undefined)) {
      for (const early of [Buffer.from('early'), Buffer.alloc(EARLY, 'early')]) {
        const path = `/relay/${token}${early.length}`
        const other = await front.direct.open(path)
        const { statusCode, client } = await front.begin(path, { token, early })
        if (typeof proxy.earlyData === 'number') {
          t.ok([front.accepted, proxy.earlyData].includes(statusCode), `${statusCode}`)
          continue
        }
        t.equal(statusCode, front.accepted)
        await client.send('later')
        if (proxy.earlyData) t.ok((await other.read(early.length + 5)).equals(Buffer.concat([early, Buffer.from('later')])), `${token}, ${early.length} bytes`)
        else if (early.length === 5) t.equal(String(await other.read(5)), 'later', `${token}: only what comes behind the 101 arrives`)
      }
    }
  })

  t.test("the client's address and protocol are right, whatever it says about them", async (t) => {
    const front = await startFront(t, proxy, isTls)
    const forged = { 'X-Forwarded-For': ['203.0.113.9', '127.0.0.1'], 'X-Forwarded-Proto': 'gopher', Forwarded: 'for=203.0.113.9;proto=gopher', 'X-Real-IP': '203.0.113.9' }
    for (const localAddress of ['127.0.0.21', '127.0.0.22']) {
      for (const headers of [{}, forged]) {
        const { headers: answered } = await front.ask({ path: `/relay/${localAddress}`, headers, localAddress })
        t.equal(answered['x-seen-ip'], proxy.seenAddress ?? localAddress, 'request.ip')
        t.equal(answered['x-seen-protocol'], isTls ? 'https' : 'http', 'request.protocol')
      }
    }
    t.same(front.app.relayHub.peers().map(({ address }) => address),
      ['127.0.0.21', '127.0.0.21', '127.0.0.22', '127.0.0.22'].map((address) => proxy.seenAddress ?? address))
  })

  t.test('the Host check sees the name that the client asked for', async (t) => {
    const front = await startFront(t, proxy, isTls)
    t.equal((await front.ask()).statusCode, front.accepted)
    t.equal((await front.ask({ host: `${HOST}:8443` })).statusCode, front.accepted, 'with a port')
    for (const headers of [{}, { 'X-Forwarded-Host': HOST }]) {
      const { statusCode, body } = await front.ask({ host: 'elsewhere.example.com', headers })
      t.equal(statusCode, proxy.strangersStatus ?? 421)
      if (proxy.strangersStatus === undefined) t.equal(JSON.parse(body).code, 'FST_RELAY_HOST_NOT_ALLOWED')
    }
    t.equal(front.app.relayHub.stats().attached, 2)
  })

  t.test('a refusal passes through, and REST beside it', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const { statusCode, headers, body } = await front.ask({ headers: { 'X-Refuse': '401' } })
    t.equal(statusCode, 401)
    t.match(headers['content-type'], /^application\/json/)
    t.match(JSON.parse(body), { statusCode: 401, code: 'NOT_YOU', message: 'unknown token' })
    await t.rejects(front.connect('/relay/x', { headers: { 'X-Refuse': '401' } }), { code: 'FST_RELAY_REFUSED', statusCode: 401 })

    t.equal((await front.get('/relay/health')).statusCode, 200)
  })

  t.test('half-close', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const bulk = randomBytes(1024 * 1024)

    const client = await front.open('/relay/client')
    const other = await front.direct.open('/relay/client')
    client.socket.end(bulk)
    t.ok((await other.readToEnd()).equals(bulk), 'what the client sent before its end arrives, and its end')
    other.socket.end('answer')
    t.equal(String(await client.readToEnd()), proxy.halfClose.client ? 'answer' : '', `the answer to a client that has ended its stream ${proxy.halfClose.client ? 'arrives' : 'is lost'}`)

    const client2 = await front.open('/relay/other')
    const other2 = await front.direct.open('/relay/other')
    other2.socket.end(bulk)
    t.ok((await client2.readToEnd()).equals(bulk), 'what the other side sent before its end arrives, and its end')
    client2.socket.end('answer')
    t.equal(String(await other2.readToEnd()), proxy.halfClose.other ? 'answer' : '', `the client's answer to it ${proxy.halfClose.other ? 'arrives' : 'is lost'}`)
    await until(() => front.app.relayHub.stats().peers === 0)
  })

  t.test(`an idle tunnel lives on by the relay's keepalives; a silent one ${proxy.cutsIdle ? 'is cut' : 'lives on as well'}`, async (t) => {
    const front = await startFront(t, proxy, isTls, SHORT_TIMEOUT)
    // A client that only answers the relay's pings, as any client of `wg` does.
    const kept = [await front.connect('/relay/wg'), await front.connect('/relay/wg')]
    const begun = Date.now()
    const silent = await front.open('/relay/raw')
    if (proxy.cutsIdle) {
      await silent.readToEnd()
      await (await front.open('/relay/raw')).readToEnd()
    }
    await new Promise((resolve) => setTimeout(resolve, begun + IDLE_MS - Date.now()))
    const datagram = randomBytes(1300)
    const received = once(kept[1], 'message')
    kept[0].send(datagram)
    t.ok((await received)[0].equals(datagram))
    if (!proxy.cutsIdle) {
      const other = await front.direct.open('/relay/raw')
      await other.send('hello')
      t.equal(String(await silent.read(5)), 'hello')
    }
  })

  t.test('the app closes in order while tunnels are open', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const connection = await front.connect('/relay/wg')
    const pair = [await front.open('/relay/raw'), await front.open('/relay/raw')]
    t.equal((await front.get('/relay/health')).statusCode, 200, 'and a connection that the proxy may keep')
    const closed = once(connection, 'close')
    await front.app.close()
    t.match(await closed, [{ reason: 'shutdown' }], 'the client is told')
    await Promise.all(pair.map(async (end) => await end.readToEnd()))
    t.equal(front.app.relayHub.stats().peers, 0)
  })
}
