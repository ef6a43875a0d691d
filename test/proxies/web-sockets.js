import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { HOST, IDLE_MS, SHORT_TIMEOUT, startFront } from './front.js'
import { sha256 } from './bytes.js'

// What a WebSocket must find behind any proxy.

const MANY = 20 * 1024 * 1024
const MESSAGE = 64 * 1024
const DATAGRAMS = { protocols: ['spanza.v1'] }
const BYTES = { protocols: ['spanza.raw.v1'] }

/** Tests the WebSockets of one proxy, with and without TLS. */
export function testWebSockets (t, proxy) {
  for (const isTls of [false, true]) {
    const { skip = false } = proxy
    t.test(`WebSockets through ${proxy.name}, ${isTls ? 'TLS' : 'plain'}`, { skip }, async (t) => await testFront(t, proxy, isTls))
  }
}

async function testFront (t, proxy, isTls) {
  t.test('datagrams, each in a message, to a WebSocket and to a client of ours', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const [a, b] = [await front.webSocket('/relay/two', DATAGRAMS), await front.webSocket('/relay/two', DATAGRAMS)]
    t.equal(a.protocol, 'spanza.v1')
    for (const [from, to] of [[a, b], [b, a]]) {
      for (const length of [1, 1300, 2048]) await travels(t, from, to, randomBytes(length))
    }
    const c = await front.webSocket('/relay/mixed')
    const other = await front.direct.connect('/relay/mixed')
    await travels(t, c, other, randomBytes(1300))
    await travels(t, other, c, randomBytes(1300))
    const { appHttp = 1 } = proxy
    t.match(front.app.relayHub.peers(), [...Array(3).fill({ framing: 'websocket', protocol: 'websocket', httpVersion: `${appHttp}.${appHttp === 2 ? 0 : 1}` }), { framing: 'wg' }])
  })

  t.test(`20 MiB of bytes in both directions${proxy.bothWays === false ? ', one after the other' : ' at once'}`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    const ends = [await front.webSocket('/relay/bytes', BYTES), await front.webSocket('/relay/bytes', BYTES)]
    t.equal(ends[0].protocol, 'spanza.raw.v1')
    const bytes = randomBytes(MANY)
    const travel = async (from, to) => {
      const received = digestOf(to, MANY)
      await sendAll(from, bytes)
      t.equal(await received, sha256([bytes]))
    }
    const there = travel(...ends)
    if (proxy.bothWays === false) await there
    await Promise.all([there, travel(...ends.toReversed())])
  })

  t.test("the relay's pings keep idle WebSockets alive", async (t) => {
    const front = await startFront(t, proxy, isTls, SHORT_TIMEOUT)
    const pairs = []
    for (const settings of [DATAGRAMS, BYTES]) {
      const path = `/relay/${settings.protocols[0]}`
      const pair = [await front.webSocket(path, settings), await front.webSocket(path, settings)]
      let pings = 0
      pair[0].on('ping', () => { pings++ })
      pairs.push({ pair, count: () => pings })
    }
    await new Promise((resolve) => setTimeout(resolve, IDLE_MS))
    for (const { pair, count } of pairs) {
      t.ok(count() > 0, `${count()} pings`)
      await travels(t, ...pair, randomBytes(1300))
    }
  })

  t.test('a close code and its reason pass from one end of a byte stream to the other', async (t) => {
    const front = await startFront(t, proxy, isTls)
    for (const swap of [false, true]) {
      const pair = [await front.webSocket('/relay/pair', BYTES), await front.direct.webSocket('/relay/pair', BYTES)]
      const [from, to] = swap ? pair.reverse() : pair
      const closed = [closeOf(from), closeOf(to)]
      from.close(4321, 'that was all')
      t.same(await Promise.all(closed), Array(2).fill([4321, 'that was all']))
    }
  })

  t.test('the relay says why it closes', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const talks = await front.webSocket('/relay/talks', DATAGRAMS)
    talks.send('text')
    t.match(await closeOf(talks), [1003])
    const shouts = await front.webSocket('/relay/shouts', DATAGRAMS)
    shouts.send(Buffer.alloc(65536))
    t.match(await closeOf(shouts), [1009])
    const [left, leaves] = [await front.webSocket('/relay/left', BYTES), await front.direct.webSocket('/relay/left', BYTES)]
    leaves.terminate()
    t.match(await closeOf(left), [1011])
    const stays = await front.webSocket('/relay/stays', DATAGRAMS)
    const closed = closeOf(stays)
    await front.app.close()
    t.match(await closed, [1001])
  })

  t.test('one that breaks is gone', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const [breaks, other] = [await front.webSocket('/relay/breaks', BYTES), await front.direct.webSocket('/relay/breaks', BYTES)]
    breaks.terminate()
    t.match(await closeOf(other), [1011])
    t.equal(front.app.relayHub.stats().peers, 0)
  })

  t.test('pages of its own origin get in, pages of others do not', async (t) => {
    const front = await startFront(t, proxy, isTls)
    await front.webSocket('/relay/x', { origin: front.origin })
    for (const origin of [`http${isTls ? '' : 's'}://${HOST}`, 'https://elsewhere.example.com', `${front.origin}:8443`, 'null']) {
      const refused = await t.rejects(front.webSocket('/relay/x', { origin, headers: { 'X-Forwarded-Host': 'elsewhere.example.com' } }), { statusCode: 403 }, origin)
      t.equal(JSON.parse(refused.body).code, 'FST_RELAY_ORIGIN_NOT_ALLOWED')
    }
    t.equal(front.app.relayHub.stats().attached, 1)
  })

  t.test('refusals pass through', async (t) => {
    const front = await startFront(t, proxy, isTls)
    for (const [options, statusCode, code] of [
      [{ headers: { 'X-Refuse': '401' } }, 401, 'NOT_YOU'],
      [{ protocols: ['soap'] }, 400, 'FST_RELAY_SUBPROTOCOL'],
      [{ protocolVersion: 8 }, 426, 'FST_RELAY_WEBSOCKET_VERSION']
    ]) {
      const refused = await t.rejects(front.webSocket('/relay/x', options), { statusCode }, code)
      t.equal(JSON.parse(refused.body).code, code)
    }
  })
}

/** Sends a message, or a datagram, and awaits it at the other end. */
async function travels (t, from, to, bytes) {
  const received = once(to, 'message')
  from.send(bytes)
  t.ok((await received)[0].equals(bytes), `${bytes.length} bytes`)
}

async function sendAll (webSocket, bytes) {
  for (let sent = 0; sent < bytes.length; sent += MESSAGE) {
    await new Promise((resolve, reject) => webSocket.send(bytes.subarray(sent, sent + MESSAGE), (error) => error ? reject(error) : resolve()))
  }
}

/** The checksum of the next so many bytes. */
async function digestOf (webSocket, length) {
  const hash = createHash('sha256')
  let missing = length
  await new Promise((resolve, reject) => {
    webSocket.on('message', (message) => {
      hash.update(message)
      missing -= message.length
      if (missing === 0) resolve()
    })
    webSocket.on('close', (code) => reject(new Error(`closed with ${code}, ${missing} bytes before the end`)))
  })
  return hash.digest('hex')
}

async function closeOf (webSocket) {
  const [code, reason] = await once(webSocket, 'close')
  return [code, String(reason)]
}
