import { once } from 'node:events'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { RefusalInfo, RelayRouteOptions } from '../../lib/index.ts'
import { createGate } from '../helpers/gate.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, startApp, testJoined } from '../helpers/relay-app.ts'

// A client that leaves during the handshake: counted as 499, once; the app's hooks hear of it; what they do later
// does no harm; and its place among the unfinished handshakes is free again.

/** How a client leaves. */
const ways: Record<string, (client: RawClient) => unknown> = {
  'by a FIN': (client) => client.socket.end(),
  'by closing': (client) => client.socket.destroy(),
  'by a RST': (client) => client.socket.resetAndDestroy(),
  'by a RST behind its FIN': (client) => { client.socket.end(() => client.socket.resetAndDestroy()) }
}

/**
 * Early data is not read before the 101, and so an end of the stream behind it is not seen, nor is what comes behind
 * that: Node reads no further. A RST alone is.
 */
const waysWithEarlyData = { 'by a RST': ways['by a RST']! }

interface Hang {
  /** Resolves when a handshake has come as far as where it hangs. */
  reached: Promise<void>
  /** Lets it go on. */
  open: () => void
  /** What was seen: `signal`, `abort`, `late` when the hook goes on. */
  seen: string[]
  /** Resolves when signal and hook have told that the client has left. */
  told: Promise<unknown>
  options: RelayRouteOptions
}

const places = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'identify'] as const

/** Options of a relay route whose handshakes hang at a place. */
function hangIn (place: typeof places[number], afterwards: () => unknown = () => {}): Hang {
  const seen: string[] = []
  const { hook, open, reached } = createGate()
  let tellSignal = (): void => {}
  let tellAbort = (): void => {}
  const told = Promise.all([
    new Promise<void>((resolve) => { tellSignal = () => { seen.push('signal'); resolve() } }),
    new Promise<void>((resolve) => { tellAbort = () => { seen.push('abort'); resolve() } })
  ])
  const hang = async (request: { signal: AbortSignal }): Promise<undefined> => {
    request.signal.addEventListener('abort', tellSignal)
    await hook()
    seen.push('late')
    await afterwards()
  }
  return { reached, open, seen, told, options: { [place]: hang, onRequestAbort: async (_request) => tellAbort() } }
}

/** Tests that the one place among the unfinished handshakes is free, and that nothing is left of those before. */
async function testFree (t: Test, app: FastifyInstance, refusals: RefusalInfo[], expected: object[]): Promise<void> {
  const [a, b] = [await openBare(t, app, '/alive'), await openBare(t, app, '/alive')]
  await testJoined(t, a, b)
  t.match(refusals, expected)
  t.equal(refusals.length, expected.length, 'told once')
  const { attached, peers, refused } = app.relayHub.stats()
  t.same({ attached, peers, refused }, { attached: 2, peers: 2, refused: expected.length === 0 ? {} : { FST_RELAY_CLIENT_GONE: expected.length } })
}

const gone = { statusCode: 499, code: 'FST_RELAY_CLIENT_GONE', address: '127.0.0.1', path: '/relay' }
const oneAtATime = { maxClientUnfinishedHandshakes: 1 }

for (const place of places) {
  for (const early of ['', 'early data']) {
    for (const [way, leave] of Object.entries(early === '' ? ways : waysWithEarlyData)) {
      t.test(`a client that leaves during ${place} ${way}${early === '' ? '' : `, with ${early}`}`, async (t) => {
        const hang = hangIn(place)
        const app = await startApp(t, (app) => {
          app.relay('/relay', hang.options)
          app.relay('/alive')
        }, { relay: oneAtATime })
        const refusals = refusalsOf(app)
        const refused = once(app.relayHub, 'refuse')
        const client = await RawClient.dial(t, app, { allowHalfOpen: true })
        await client.send(upgradeText('/relay') + early)
        await hang.reached
        leave(client)
        await Promise.all([refused, hang.told])
        t.same([...hang.seen].sort(), ['abort', 'signal'], 'the hooks are told while they run, once')
        t.equal(client.unread, '', 'it is answered nothing')
        // Free at once, not only when the hook has ended.
        await testFree(t, app, refusals, [gone])
        hang.open()
        await app.inject('/')
        t.same(hang.seen.slice(2), ['late'])
        t.equal(app.relayHub.stats().attached, 2, 'and what comes of the hook later attaches nothing')
        t.equal(refusals.length, 1)
      })
    }
  }
}

t.test('a client that sends early data, ends its stream and is gone keeps its place until the deadline, no longer', async (t) => {
  const hang = hangIn('onRequest')
  const app = await startApp(t, (app) => {
    app.relay('/relay', hang.options)
    app.relay('/alive')
  }, { relay: { ...oneAtATime, handshakeTimeout: 100 } })
  const refusals = refusalsOf(app)
  const refused = once(app.relayHub, 'refuse')
  const client = await RawClient.dial(t, app, { allowHalfOpen: true })
  await client.send(upgradeText('/relay') + 'early data')
  await hang.reached
  ways['by a RST behind its FIN']!(client)
  await Promise.all([refused, hang.told])
  await testJoined(t, await openBare(t, app, '/alive'), await openBare(t, app, '/alive'))
  t.equal(refusals.length, 1, 'told once')
})

t.test('what identify does when the client has left does no harm', async (t) => {
  const outcomes: Record<string, () => unknown> = {
    'returns an identity': () => ({ id: 'same' }),
    'returns nonsense': () => 7,
    throws: () => { throw new Error('late') },
    'throws with a status': () => { throw Object.assign(new Error('late'), { statusCode: 403 }) }
  }
  for (const [what, outcome] of Object.entries(outcomes)) {
    await t.test(what, async (t) => {
      const hang = hangIn('identify', outcome)
      const app = await startApp(t, (app) => {
        app.relay('/relay', hang.options)
        app.relay('/alive')
      }, { relay: oneAtATime })
      const refusals = refusalsOf(app)
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay'))
      await hang.reached
      client.socket.resetAndDestroy()
      await hang.told
      hang.open()
      await app.inject('/')
      await testFree(t, app, refusals, [gone])
    })
  }
})

t.test('a client that leaves before the hooks', async (t) => {
  const leaveWith: Record<string, (client: RawClient, bytes: string) => unknown> = {
    'with half of its request, by a FIN': (client, bytes) => client.socket.end(bytes.slice(0, -10)),
    'with half of its request, by a RST': async (client, bytes) => { await client.send(bytes.slice(0, -10)); client.socket.resetAndDestroy() },
    'with nothing at all': (client) => client.socket.end()
  }
  for (const [what, leave] of Object.entries(leaveWith)) {
    await t.test(`${what} was never a handshake`, async (t) => {
      const app = await startApp(t, (app) => {
        app.relay('/relay')
        app.relay('/alive')
      }, { relay: oneAtATime })
      const refusals = refusalsOf(app)
      const client = await RawClient.dial(t, app)
      await leave(client, upgradeText('/relay'))
      await client.closed
      await testFree(t, app, refusals, [])
    })
  }

  await t.test('in the turn in which its request was sent, costs nothing but itself', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/sync', { onRequest: (_request, _reply, done) => done() })
      app.relay('/async', { onRequest: async () => await new Promise((resolve) => setImmediate(resolve)) })
      app.relay('/alive')
    }, { relay: oneAtATime })
    for (const path of ['/sync', '/async']) {
      for (const leave of Object.values(ways)) {
        const closed = new Promise((resolve) => { app.server.once('connection', (socket) => socket.on('close', resolve)) })
        const client = await RawClient.dial(t, app)
        client.socket.write(upgradeText(path))
        leave(client)
        await closed
      }
    }
    const { attached, detached, refused } = app.relayHub.stats()
    const sum = (counters: Record<string, number | undefined>): number => Object.values(counters).reduce<number>((sum, count) => sum + (count ?? 0), 0)
    t.equal(sum(detached), attached, 'no tunnel is left')
    t.same(Object.keys(refused).filter((code) => code !== 'FST_RELAY_CLIENT_GONE'), [])
    await testJoined(t, await openBare(t, app, '/alive'), await openBare(t, app, '/alive'))
  })
})

t.test('a client that resets its connection in the very turn of the 101', async (t) => {
  for (const [framing, early] of [['raw', ''], ['raw', 'early data'], ['wg', '']] as const) {
    await t.test(`has a tunnel that is lost (${framing}${early && `, ${early}`})`, async (t) => {
      const clients: RawClient[] = []
      const app = await startApp(t, (app) => {
        app.relay('/relay', { identify: () => ({ context: clients[0]!.socket.resetAndDestroy() }) })
        app.relay('/alive')
      }, { relay: oneAtATime })
      const refusals = refusalsOf(app)
      const detached = once(app.relayHub, 'detach')
      const client = await RawClient.dial(t, app)
      clients.push(client)
      await client.send(upgradeText('/relay', { headers: { 'Spanza-Framing': framing } }) + early)
      t.match((await detached)[1], { reason: 'lost' })
      await testJoined(t, await openBare(t, app, '/alive'), await openBare(t, app, '/alive'))
      t.same(refusals, [])
      t.match(app.relayHub.stats(), { attached: 3, peers: 2, refused: {} })
    })
  }

  await t.test('or of a refusal harms nobody, and the refusal is told once', async (t) => {
    const clients: RawClient[] = []
    const app = await startApp(t, (app) => {
      app.relay('/relay', { onRequest: async (_request, reply) => { clients[0]!.socket.resetAndDestroy(); await reply.code(401).send({}) } })
      app.relay('/alive')
    }, { relay: oneAtATime })
    const refusals = refusalsOf(app)
    const refused = once(app.relayHub, 'refuse')
    const client = await RawClient.dial(t, app)
    clients.push(client)
    await client.send(upgradeText('/relay'))
    await refused
    await testJoined(t, await openBare(t, app, '/alive'), await openBare(t, app, '/alive'))
    t.equal(refusals.length, 1)
    // Whether the answer still left is the kernel's and Node's matter.
    t.ok([401, 499].includes(refusals[0]!.statusCode))
  })
})

t.test('a client that leaves while it is being refused', async (t) => {
  for (const leave of ['end', 'destroy', 'resetAndDestroy'] as const) {
    await t.test(`by ${leave}, in the middle of a large answer`, async (t) => {
      const app = await startApp(t, (app) => {
        app.relay('/relay', { onRequest: (_request, reply) => { reply.code(401).send(Buffer.alloc(20_000_000)) } })
        app.relay('/alive')
      }, { relay: oneAtATime })
      const refusals = refusalsOf(app)
      const refused = once(app.relayHub, 'refuse')
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay'))
      await client.head()
      client.socket[leave]()
      await refused
      await testJoined(t, await openBare(t, app, '/alive'), await openBare(t, app, '/alive'))
      t.equal(refusals.length, 1, 'told once')
    })
  }
})
