import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { CLOSING, DRAIN } from '../../lib/framing/wg.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { startApp } from '../helpers/relay-app.ts'
import { openTunnel, until, type Tunnel } from '../helpers/tunnel.ts'
import { openWebSocket } from '../helpers/websocket.ts'
import { transportData } from '../helpers/wireguard-messages.ts'

// What app.close() does to a tunnel, or to what is to become one, in each state it can be in. closeGrace is longer
// than a test may take, so that a close that returns has not been saved by it.

interface Relay {
  app: FastifyInstance
  /** Resolves when the hook of a handshake to /hanging runs, which never ends. */
  hanging: Promise<void>
}

/** Brings about a state; gives back what is done and tested while the server closes. */
type State = (t: Test, relay: Relay) => Promise<() => Promise<unknown>>

async function startRelay (t: Test, forceCloseConnections: boolean | 'idle'): Promise<Relay> {
  let reach = (): void => {}
  const hanging = new Promise<void>((resolve) => { reach = resolve })
  const app = await startApp(t, (app) => {
    app.relay('/relay/:network', { identify: ({ headers }) => ({ id: headers['x-id'] as string | undefined }) })
    app.relay('/hanging/:network', {
      onRequest: [(_request, _reply, done) => done(), async () => {
        reach()
        await new Promise(() => {})
      }]
    })
    app.get('/rest', async () => 'rest')
  }, { server: { forceCloseConnections }, relay: { closeGrace: 120_000, handshakesPerSecond: 10_000 } })
  return { app, hanging }
}

async function testDrained (t: Test, tunnel: Tunnel): Promise<void> {
  await Promise.all([tunnel.ended, tunnel.closed])
  t.same(tunnel.controls.all.slice(-2).map(({ type }) => type), [DRAIN, CLOSING])
  t.same(tunnel.closing, { code: 7, text: 'the relay is shutting down' })
  t.equal(tunnel.error, undefined, 'the connection ends, and not by a reset')
}

async function testReset (t: Test, tunnel: Tunnel): Promise<void> {
  await tunnel.closed
  t.match(tunnel.error, { code: 'ECONNRESET' }, 'what is cut short does not look whole')
}

async function testClosing (t: Test, client: RawClient): Promise<void> {
  const answer = await client.answer()
  t.match(answer, { statusCode: 503, headers: { 'retry-after': /^\d+$/, connection: 'close' } })
  t.match(JSON.parse(answer.body), { code: 'FST_RELAY_CLOSING' })
  t.equal(await client.closed, undefined, 'the connection ends, and not by a reset')
}

/** Writes random bytes until the socket breaks; gives back all of them. */
function pour (tunnel: Tunnel): Buffer[] {
  const poured: Buffer[] = []
  const write = (): void => {
    while (tunnel.socket.writable) {
      const bytes = randomBytes(50_000)
      poured.push(bytes)
      if (!tunnel.write(bytes)) return
    }
  }
  tunnel.socket.on('drain', write)
  write()
  return poured
}

const states: Record<string, State> = {
  'an idle peer': async (t, { app }) => {
    const tunnel = await openTunnel(t, app, { path: '/relay/idle' })
    return async () => await testDrained(t, tunnel)
  },
  'an idle peer whose framing has no words': async (t, { app }) => {
    const tunnel = await openTunnel(t, app, { path: '/relay/wordless', framing: 'len16' })
    return async () => {
      await tunnel.closed
      t.equal(tunnel.bytes.length, 0)
      t.equal(tunnel.error, undefined)
    }
  },
  'a peer with unread data': async (t, { app }) => {
    const path = '/relay/unread'
    const [sender, late] = [await openTunnel(t, app, { path }), await openTunnel(t, app, { path, reads: false })]
    const sent = Array.from({ length: 20 }, () => transportData(1, 1000))
    sender.send(...sent)
    await sender.roundTrip()
    return async () => {
      late.read()
      await testDrained(t, late)
      t.same(late.take(), sent)
      await testDrained(t, sender)
    }
  },
  'a peer that does not read, whose queue is full': async (t, { app }) => {
    const path = '/relay/blocked'
    const [sender, deaf] = [await openTunnel(t, app, { path }), await openTunnel(t, app, { path, reads: false })]
    while (app.relayHub.stats().drops['queue-full'] === 0) {
      sender.send(...Array.from({ length: 40 }, () => transportData(1, 1400)))
      await sender.roundTrip()
    }
    const serverClosed = once(app.server, 'close')
    return async () => {
      await testDrained(t, sender)
      await until(() => app.relayHub.stats().detached['shutdown']! >= 2)
      t.ok(app.relayHub.stats().drops['peer-closed'] > 0, 'what waited is counted')
      // No word can reach it; it is cut off, or the server would wait for it.
      await serverClosed
      deaf.read()
      await deaf.closed
    }
  },
  'a handshake whose asynchronous hook hangs': async (t, { app, hanging }) => {
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/hanging/x'))
    await hanging
    return async () => await testClosing(t, client)
  },
  'a handshake that its client has left': async (t, { app, hanging }) => {
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/hanging/x'))
    await hanging
    const refused = once(app.relayHub, 'refuse')
    client.socket.resetAndDestroy()
    await refused
    return async () => {}
  },
  'peers that have just ended and just broken': async (t, { app }) => {
    const path = '/relay/gone'
    const [ended, broken] = [await openTunnel(t, app, { path }), await openTunnel(t, app, { path })]
    const detached = once(app.relayHub, 'detach')
    ended.socket.end()
    await detached
    broken.socket.resetAndDestroy()
    return async () => await ended.closed
  },
  'a peer that the relay has just closed, and that does not end': async (t, { app }) => {
    const tunnel = await openTunnel(t, app, { path: '/relay/disconnected', id: 'x', reads: false })
    app.relayHub.disconnect({ channel: 'disconnected', id: 'x' })
    return async () => {
      tunnel.read()
      await tunnel.closed
      t.match(tunnel.closing, { code: 6 })
    }
  },
  'a tunnel that waits for its other half': async (t, { app }) => {
    const tunnel = await openTunnel(t, app, { path: '/relay/waiting', framing: 'raw' })
    tunnel.write('early')
    await until(() => app.relayHub.peers().some(({ bytesIn }) => bytesIn === 5))
    return async () => {
      await tunnel.ended
      tunnel.socket.end()
      await tunnel.closed
      t.equal(tunnel.error, undefined)
    }
  },
  'a pair with data under way in both directions': async (t, { app }) => {
    const [a, b] = [await openTunnel(t, app, { path: '/relay/busy', framing: 'raw' }), await openTunnel(t, app, { path: '/relay/busy', framing: 'raw' })]
    const [fromA, fromB] = [pour(a), pour(b)]
    await until(() => a.chunks.length > 20 && b.chunks.length > 20)
    return async () => {
      // By a reset, or by a write into a connection that has got one.
      await Promise.all([a.closed, b.closed])
      for (const { error } of [a, b]) t.match(error, { code: /^(?:ECONNRESET|EPIPE)$/ })
      t.ok(Buffer.concat(fromA).subarray(0, b.bytes.length).equals(b.bytes), 'what came is the beginning of what was sent')
      t.ok(Buffer.concat(fromB).subarray(0, a.bytes.length).equals(a.bytes), 'the other way as well')
    }
  },
  'a pair of which one direction has ended': async (t, { app }) => {
    const [a, b] = [await openTunnel(t, app, { path: '/relay/half', framing: 'raw' }), await openTunnel(t, app, { path: '/relay/half', framing: 'raw' })]
    a.socket.end('question')
    await b.ended
    return async () => {
      await testReset(t, a)
      t.equal(b.bytes.toString(), 'question')
      // Who has read to the end learns of a reset only by writing.
      b.write('answer')
      await b.closed
      t.match(b.error, { code: /^(?:ECONNRESET|EPIPE)$/ })
    }
  },
  'a pair of WebSockets of which one has closed, and the other one does not answer yet': async (t, { app }) => {
    const path = '/relay/closing'
    const gone = await openWebSocket(t, app, path, ['spanza.raw.v1'])
    const late = await RawClient.dial(t, app)
    await late.upgrade(t, path, {
      headers: { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Protocol': 'spanza.raw.v1' }
    })
    const goneClosed = once(gone, 'close')
    gone.close(1000)
    await goneClosed
    // The Close frame, which passes through when the connection of the first one is closed.
    t.same(await late.read(4), Buffer.from([0x88, 2, 0x03, 0xe8]))
    return async () => {
      late.socket.end()
      await late.closed
    }
  },
  'upgrades that arrive on connections that were open before': async (t, { app }) => {
    const used = await RawClient.dial(t, app)
    await used.send(requestText('/rest'))
    t.equal((await used.answer()).body, 'rest')
    const fresh = await RawClient.dial(t, app)
    // Holds the server back until it has been asked: its client does not end its side.
    const holding = await openTunnel(t, app, { path: '/relay/holding', framing: 'raw' })
    return async () => {
      await Promise.all([used, fresh].map(async (client) => {
        await client.send(upgradeText('/relay/late'))
        await testClosing(t, client)
      }))
      holding.socket.end()
    }
  },
  'a refused client that leaves its side open': async (t, { app }) => {
    const client = await RawClient.dial(t, app, { allowHalfOpen: true })
    await client.send(upgradeText('/relay/x', { headers: { Upgrade: 'h2c' } }))
    t.equal((await client.answer()).statusCode, 400)
    const serverClosed = once(app.server, 'close')
    return async () => {
      await serverClosed
      client.socket.destroy()
    }
  }
}

/** What keeps a process alive that a relay or its clients may hold. */
function handles (): string[] {
  return process.getActiveResourcesInfo().filter((name) => /^(?:TCP|TLS|Timeout)/.test(name)).sort()
}

/** Brings states about, closes, tests what each comes to, and that nothing is left. */
async function testClose (t: Test, forceCloseConnections: boolean | 'idle', names: string[]): Promise<void> {
  const before = handles()
  const relay = await startRelay(t, forceCloseConnections)
  const { app } = relay
  const rests = []
  for (const name of names) rests.push(await states[name]!(t, relay))
  const closed = app.close()
  await until(() => app.relayHub.isClosing)
  await Promise.all([closed, ...rests.map(async (rest) => await rest())])
  t.match(app.relayHub.stats(), { peers: 0, channels: 0 })
  t.same(app.relayHub.peers(), [])
  t.equal(app.server.listening, false)
  await until(() => handles().length <= before.length)
  t.same(handles(), before, 'nothing is left that would keep the process alive')
}

for (const forceCloseConnections of [true, false, 'idle'] as const) {
  t.test(`with forceCloseConnections ${forceCloseConnections}, closing ends`, async (t) => {
    for (const name of Object.keys(states)) {
      await t.test(name, async (t) => await testClose(t, forceCloseConnections, [name]))
    }
    // A closing relay waits a second at most for those who linger: what arrives meanwhile needs a process that is not busy otherwise.
    const together = Object.keys(states).filter((name) => !name.startsWith('upgrades that arrive'))
    await t.test('all others of these at once', async (t) => await testClose(t, forceCloseConnections, together))
  })
}
