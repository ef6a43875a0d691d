import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay, { type HubOptions, type RelayRouteOptions } from '../../lib/index.ts'
import { connectStream, openSession } from '../helpers/http2-client.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { startApp, startListening } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

// The table of docs/hooks.md: which hooks run for a tunnel, in which order, and with what. Each row over each version of HTTP, with a
// bare tunnel and with a WebSocket.

/** What a client sees of its request. */
interface Asked {
  /** 101 and 200 are a tunnel. */
  statusCode: () => Promise<number>
  header: (name: string) => Promise<unknown>
  leave: () => void
}

interface Way {
  server: FastifyServerOptions
  /** The status of a tunnel. */
  opened: number
  ask: (t: Test, app: FastifyInstance) => Promise<Asked>
}

const KEY = { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version': '13' }

function overHttp1 (headers: Record<string, string>): Way {
  return {
    server: {},
    opened: 101,
    ask: async (t, app) => {
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay', { headers }))
      const head = client.head()
      head.catch(() => {})
      return {
        statusCode: async () => (await head).statusCode,
        header: async (name) => (await head).headers[name],
        leave: () => client.socket.destroy()
      }
    }
  }
}

function overHttp2 (protocol: string): Way {
  return {
    server: { http2: true } as object as FastifyServerOptions,
    opened: 200,
    ask: async (t, app) => {
      const session = await openSession(t, app)
      const client = connectStream(session, '/relay', { protocol })
      const head = client.head()
      head.catch(() => {})
      return {
        statusCode: async () => Number((await head)[':status']),
        header: async (name) => (await head)[name],
        leave: () => client.stream.close(8)
      }
    }
  }
}

const ways: Record<string, Way> = {
  'a bare tunnel over HTTP/1.1': overHttp1({}),
  'a WebSocket over HTTP/1.1': overHttp1({ Upgrade: 'websocket', ...KEY }),
  'a bare tunnel over HTTP/2': overHttp2('spanza'),
  'a WebSocket over HTTP/2': overHttp2('websocket')
}

interface Row {
  options?: RelayRouteOptions
  relay?: HubOptions
  /** Undefined for a tunnel. */
  refused?: number
  /** Whether the answer is written past Fastify. */
  isBare?: boolean
  /** Before the client knows. */
  ran: string[]
  /** Where the client leaves when this hook has begun. */
  leavesIn?: string
}

const before = ['onRequest', 'preParsing', 'preValidation', 'preHandler']
const fail = async (): Promise<never> => { throw Object.assign(new Error('no'), { statusCode: 403 }) }

const rows: Record<string, Row> = {
  'an accepted tunnel': { ran: [...before, 'identify', 'onSend'] },
  'an error of a hook': { options: { preHandler: fail }, refused: 403, ran: [...before, 'onError', 'onSend', 'onResponse 403'] },
  'a reply of a hook': {
    options: { preHandler: async (_request, reply) => await reply.code(403).send({ no: 'entry' }) },
    refused: 403,
    ran: [...before, 'preSerialization', 'onSend', 'onResponse 403']
  },
  'an error of identify': { options: { identify: fail }, refused: 403, ran: [...before, 'onError', 'onSend', 'onResponse 403'] },
  'an error of onSend': {
    options: { onSend: async (_request, _reply, payload) => { if (payload === undefined) await fail() } },
    refused: 403,
    ran: [...before, 'identify', 'onSend', 'onError', 'onSend', 'onResponse 403']
  },
  'a refusal of the relay before the hooks of the route': {
    options: { hosts: ['elsewhere.example.com'] }, refused: 421, ran: ['onRequest', 'onError', 'onSend', 'onResponse 421']
  },
  'a refusal of the relay behind them': {
    options: { identify: () => ({ id: '' }) }, refused: 500, ran: [...before, 'onError', 'onSend', 'onResponse 500']
  },
  'a hook that never ends': {
    options: { preHandler: () => {} }, relay: { handshakeTimeout: 30 }, refused: 503, isBare: true, ran: [...before, 'onResponse 503']
  },
  'a client that leaves during the hooks': {
    options: { preHandler: () => {} }, leavesIn: 'preHandler', ran: [...before, 'onRequestAbort', 'onResponse 499']
  },
  'a client that leaves during onSend': {
    options: { onSend: () => {} }, leavesIn: 'onSend', ran: [...before, 'identify', 'onSend', 'onRequestAbort', 'onResponse 499']
  }
}

function noteHooks (app: FastifyInstance): string[] {
  const ran: string[] = []
  for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onError', 'onTimeout', 'onRequestAbort']) {
    app.addHook(name as 'onRequest', async (_request) => { ran.push(name) })
  }
  app.addHook('onSend', async (_request, reply) => {
    ran.push('onSend')
    reply.header('x-sent', 'yes')
  })
  app.addHook('onResponse', async (_request, reply) => { ran.push(`onResponse ${reply.statusCode}`) })
  return ran
}

for (const [title, way] of Object.entries(ways)) {
  t.test(title, async (t) => {
    for (const [what, { options = {}, relay = {}, refused, isBare, ran: expected, leavesIn }] of Object.entries(rows)) {
      await t.test(what, async (t) => {
        let ran: string[] = []
        const app = await startApp(t, (app) => {
          ran = noteHooks(app)
          app.relay('/relay', { identify: () => { ran.push('identify'); return {} }, ...options })
        }, { server: way.server, relay })
        const asked = await way.ask(t, app)
        if (leavesIn !== undefined) {
          await until(() => ran.includes(leavesIn))
          asked.leave()
          await until(() => ran.length >= expected.length)
          // Of the two that tell that the client has left, either may come first.
          t.same([...ran].sort(), [...expected].sort())
        } else if (refused !== undefined) {
          t.equal(await asked.statusCode(), refused)
          t.equal(await asked.header('x-sent'), isBare === true ? undefined : 'yes', 'a header that onSend has set')
          await until(() => ran.length >= expected.length)
          t.same(ran, expected)
        } else {
          t.equal(await asked.statusCode(), way.opened)
          t.equal(await asked.header('x-sent'), 'yes', 'a header that onSend has set')
          t.same(ran, expected)
          const detached = once(app.relayHub, 'detach')
          asked.leave()
          await detached
          await until(() => ran.length > expected.length)
          t.same(ran, [...expected, `onResponse ${way.opened}`], 'when the tunnel has ended')
        }
        const all = [...ran]
        await app.close()
        t.same(ran, all, 'nothing runs twice')
      })
    }

    await t.test('what is taken in onRequest and given back in onResponse does not leak', async (t) => {
      let taken = 0
      const app = await startApp(t, (app) => {
        app.addHook('onRequest', async () => { taken++ })
        app.addHook('onResponse', async () => { taken-- })
        app.relay('/relay')
        app.get('/rest', async () => 'rest')
      }, { server: way.server })
      for (let i = 0; i < 5; i++) {
        const asked = await way.ask(t, app)
        t.equal(await asked.statusCode(), way.opened)
        t.equal(taken, 1)
        asked.leave()
        await until(() => taken === 0)
      }
      const asked = await way.ask(t, app)
      await asked.statusCode()
      await app.close()
      t.equal(taken, 0, 'nor where the app closes')
    })

    await t.test('onResponse sees how long the tunnel was open', async (t) => {
      let elapsed = 0
      const app = await startApp(t, (app) => app.relay('/relay', { onResponse: async (_request, reply) => { elapsed = reply.elapsedTime } }), { server: way.server })
      const asked = await way.ask(t, app)
      await asked.statusCode()
      const since = performance.now()
      await new Promise((resolve) => setTimeout(resolve, 30))
      const open = performance.now() - since
      asked.leave()
      await until(() => elapsed > 0)
      t.ok(elapsed >= open)
    })

    await t.test('a hook of onSend that takes its time: others may take the room meanwhile', async (t) => {
      let release: (() => void) | undefined
      const app = await startApp(t, (app) => app.relay('/relay', {
        onSend: async () => { if (release === undefined) await new Promise<void>((resolve) => { release = resolve }) }
      }), { server: way.server, relay: { maxPeers: 1 } })
      const slow = await way.ask(t, app)
      await until(() => release !== undefined)
      const quick = await way.ask(t, app)
      t.equal(await quick.statusCode(), way.opened)
      release!()
      t.equal(await slow.statusCode(), 503)
      await until(() => app.relayHub.stats().refused['FST_RELAY_HUB_FULL'] === 1)
      t.equal(app.relayHub.stats().peers, 1)
    })

    await t.test('a hook of onSend that never ends meets the deadline', async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { onSend: () => {} }), { server: way.server, relay: { handshakeTimeout: 30 } })
      const asked = await way.ask(t, app)
      t.equal(await asked.statusCode(), 503)
      await until(() => app.relayHub.stats().refused['FST_RELAY_HANDSHAKE_TIMEOUT'] === 1)
    })

    await t.test('a limit of handshakes: no hook runs, those that came before the plugin neither', async (t) => {
      const ran: string[] = []
      const app = Fastify(way.server) as FastifyInstance
      app.addHook('onRequest', async () => { ran.push('onRequest') })
      await app.register(spanzaRelay, { maxClientUnfinishedHandshakes: 1 })
      const behind = noteHooks(app)
      app.addHook('onResponse', async (_request, reply) => { ran.push(`onResponse ${reply.statusCode}`) })
      app.relay('/relay', { preHandler: () => {} })
      await startListening(t, app)
      const first = await way.ask(t, app)
      await until(() => behind.includes('preHandler'))
      const hooks = behind.length
      const second = await way.ask(t, app)
      t.equal(await second.statusCode(), 429)
      t.same(ran, ['onRequest'], 'of the first one')
      t.same(behind.slice(hooks), [])
      first.leave()
    })

    await t.test('an onRoute hook that adds onSend: it runs before the answer', async (t) => {
      const ran: string[] = []
      const app = await startApp(t, (app) => {
        app.addHook('onRoute', (route) => {
          route.onSend = [...[route.onSend ?? []].flat(), async (_request, reply) => { ran.push('added'); reply.header('x-added', 'yes') }]
        })
        app.relay('/relay')
      }, { server: way.server })
      const asked = await way.ask(t, app)
      t.equal(await asked.statusCode(), way.opened)
      t.equal(await asked.header('x-added'), 'yes')
      t.same(ran, ['added'])
    })
  })
}

t.test('a target is let go of where the answer never comes', async (t) => {
  const connections: Array<Promise<unknown>> = []
  const server = createServer((socket) => {
    connections.push(once(socket, 'close'))
    socket.on('error', () => {}).resume()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const target = `tcp://127.0.0.1:${(server.address() as AddressInfo).port}`
  const cases: Record<string, RelayRouteOptions> = {
    'a hook of onSend that never ends': { onSend: () => {} },
    'a hook of onSend that throws': { onSend: async (_request, _reply, payload) => { if (payload === undefined) await fail() } }
  }
  for (const [what, options] of Object.entries(cases)) {
    await t.test(what, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { target, ...options }), { relay: { handshakeTimeout: 200 } })
      const asked = await ways['a bare tunnel over HTTP/1.1']!.ask(t, app)
      t.not(await asked.statusCode(), 101)
      await Promise.all(connections.splice(0))
    })
  }
})
