import { randomBytes } from 'node:crypto'
import { connectStream } from '../helpers/http2-client.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { until } from '../helpers/tunnel.ts'
import { startFront } from './front.js'

// What tunnels that share a connection of HTTP/2 (RFC 8441) must find behind any proxy that passes them on.

const TUNNELS = 50
/** More than what is between two ends can hold. */
const FLOOD = 32 * 1024 * 1024

/**
 * Tests the HTTP/2 of one proxy, with and without TLS.
 * @param {import('./front.js').ProxyInFront & { stallsAlone?: boolean }} proxy `stallsAlone`: whether a tunnel whose other
 *   end does not read leaves the others of its connection alone
 */
export function testHttp2 (t, proxy) {
  for (const isTls of [false, true]) {
    const { skip = false } = proxy
    t.test(`tunnels of one connection through ${proxy.name}, ${isTls ? 'TLS' : 'plain'}`, { skip }, async (t) => await testFront(t, proxy, isTls))
  }
}

/** Tests that a proxy has no extended CONNECT for clients, and says so. */
export function testNoHttp2 (t, proxy) {
  t.test(`${proxy.name} announces no extended CONNECT`, async (t) => {
    const front = await startFront(t, { ...proxy, clientHttp: 2 }, true)
    const session = await front.session()
    t.not(session.remoteSettings.enableConnectProtocol, true)
    t.equal((await front.get('/relay/health')).statusCode, 200)
    await t.rejects(front.connect('/relay/x'), { code: 'FST_RELAY_HTTP2' })
  })
}

async function testFront (t, proxy, isTls) {
  t.test(`${TUNNELS} pairs`, async (t) => {
    const front = await startFront(t, proxy, isTls)
    const session = await front.session()
    t.equal(session.remoteSettings.enableConnectProtocol, true)
    const pairs = []
    for (let i = 0; i < TUNNELS; i++) pairs.push([await openOn(session, `/relay/${i}`), await front.direct.open(`/relay/${i}`)])
    for (const pair of pairs) await travelsBothWays(t, pair)
    t.equal(front.app.relayHub.stats().peers, TUNNELS * 2)
  })

  for (const isOwn of [false, true]) {
    t.test(`one that its client does not read from holds up none ${isOwn ? 'of other connections' : 'beside it'}`, async (t) => {
      const front = await startFront(t, proxy, isTls)
      const session = await front.session()
      const [stalled, floods] = [await openOn(session, '/relay/stalled'), await front.direct.open('/relay/stalled')]
      stalled.socket.pause()
      floods.socket.write(randomBytes(FLOOD))
      await stands(() => front.app.relayHub.stats().bytesOut)
      await travelsBothWays(t, [await openOn(isOwn ? await front.session() : session, '/relay/x'), await front.direct.open('/relay/x')])
    })

    if (!isOwn && !proxy.stallsAlone) continue
    t.test(`one whose other end does not read holds up none ${isOwn ? 'of other connections' : 'beside it'}`, async (t) => {
      const front = await startFront(t, proxy, isTls)
      const session = await front.session()
      const [floods, stalled] = [await openOn(session, '/relay/stalled'), await front.direct.open('/relay/stalled')]
      stalled.socket.pause()
      floods.socket.write(randomBytes(FLOOD))
      await stands(() => front.app.relayHub.stats().bytesIn)
      await travelsBothWays(t, [await openOn(isOwn ? await front.session() : session, '/relay/x'), await front.direct.open('/relay/x')])
    })
  }

  t.test('one that its client resets is lost', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const reasons = []
    front.app.relayHub.on('detach', (_peer, { reason }) => reasons.push(reason))
    const [tunnel, other] = [await front.connect('/relay/x', { framings: 'raw' }), await front.direct.open('/relay/x')]
    tunnel.destroy()
    await other.readToEnd()
    await until(() => reasons.length === 2)
    t.same(reasons, ['lost', 'partner-lost'])
  })

  t.test('one that the relay breaks off is reset', async (t) => {
    const front = await startFront(t, proxy, isTls)
    const [tunnel, other] = [await front.connect('/relay/x', { framings: 'raw' }), await front.direct.connect('/relay/x', { framings: 'raw' })]
    const closed = new Promise((resolve) => tunnel.on('error', resolve).resume())
    if (proxy.appHttp === 2) other.destroy()
    else other.resetAndDestroy()
    t.match(await closed, { code: 'FST_RELAY_ABORTED' })
  })
}

/** A bare tunnel on this connection. */
async function openOn (session, path) {
  const asked = connectStream(session, path, { protocol: 'spanza' })
  const client = new RawClient(asked.stream)
  const { ':status': statusCode } = await asked.head()
  if (statusCode !== 200) throw new Error(`refused: ${statusCode}`)
  return client
}

async function travelsBothWays (t, ends) {
  for (const [from, to] of [ends, ends.toReversed()]) {
    const bytes = randomBytes(100_000)
    await from.send(bytes)
    t.ok((await to.read(bytes.length)).equals(bytes))
  }
}

/** Resolves when a number has not changed for a while. */
async function stands (number) {
  let last
  do {
    last = number()
    await new Promise((resolve) => setTimeout(resolve, 300))
  } while (number() !== last)
}
