import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import websocket from '@fastify/websocket'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import spanzaRelay from '../../lib/index.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { startApp, startListening } from '../helpers/relay-app.ts'
import { startRelay } from '../helpers/relay.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'

// How closing goes together with the app around the relay: its requests, its hooks, its server.

const everyForce = [true, false, 'idle'] as const

/** What becomes of a request that is under way when the app closes, and of a connection that idles. */
async function closeDuringRequest (t: Test, app: FastifyInstance, whileClosing: () => Promise<unknown>): Promise<string[]> {
  let answer = (): void => {}
  const reached = new Promise<void>((resolve) => {
    app.get('/slow', async () => {
      resolve()
      await new Promise<void>((resolve) => { answer = resolve })
      return 'slow'
    })
  })
  app.get('/rest', async () => 'rest')
  await startListening(t, app)
  const idle = await RawClient.dial(t, app)
  await idle.send(requestText('/rest'))
  await idle.answer()
  const busy = await RawClient.dial(t, app)
  await busy.send(requestText('/slow'))
  await reached
  const closed = app.close()
  await whileClosing()
  // Fastify has closed what it closes by force once its server does not listen any more.
  await until(() => !app.server.listening)
  answer()
  const outcome = await busy.answer().then(({ statusCode, headers, body }) => `${statusCode} ${headers['connection']} ${body}`, (error) => error.message as string)
  // An answer that was begun before promises to keep the connection; it is the client's to end.
  busy.socket.end()
  const errors = await Promise.all([busy.closed, idle.closed])
  await closed
  return [outcome, ...errors.map((error) => error?.code ?? 'ended')]
}

for (const forceCloseConnections of everyForce) {
  t.test(`with forceCloseConnections ${forceCloseConnections}, requests under way end as they do without the plugin`, async (t) => {
    const without = Fastify({ forceCloseConnections } as FastifyServerOptions) as FastifyInstance
    const withRelay = Fastify({ forceCloseConnections } as FastifyServerOptions) as FastifyInstance
    await withRelay.register(spanzaRelay, { path: '/relay/:network' })
    const expected = await closeDuringRequest(t, without, async () => {})
    const found = await closeDuringRequest(t, withRelay, async () => await until(() => withRelay.relayHub.isClosing))
    t.same(found, expected)
    t.match(found[0], forceCloseConnections === true ? /^the stream ended/ : '200 keep-alive slow')
  })
}

t.test('closing again while closing waits for the same end, and once more is harmless', async (t) => {
  const app = await startRelay(t)
  const tunnel = await openTunnel(t, app, { reads: false })
  const order: string[] = []
  app.server.on('close', () => order.push('server'))
  const first = app.close().then(() => order.push('first'))
  await until(() => app.relayHub.isClosing)
  const second = app.close().then(() => order.push('second'))
  tunnel.read()
  await Promise.all([first, second])
  t.equal(order[0], 'server')
  await app.close()
  t.equal(app.relayHub.stats().detached['shutdown'], 1)
})

t.test('closing before listening', async (t) => {
  await t.test('and before anything was booted', async (t) => {
    const app = Fastify()
    const server = app.server
    app.register(spanzaRelay, { path: '/relay' })
    await app.close()
    t.equal(server.listenerCount('upgrade'), 0)
    t.equal(Object.hasOwn(server, 'emit'), false)
  })

  await t.test('while listening is under way', async (t) => {
    const app = Fastify()
    await app.register(spanzaRelay, { path: '/relay' })
    await app.ready()
    // With any preClose hook, Fastify leaves open what becomes of a listen() that is overtaken.
    app.listen({ port: 0, host: '127.0.0.1' }).catch(() => {})
    await app.close()
    t.equal(app.server.listening, false)
    t.equal(Object.hasOwn(app.server, 'emit'), false)
  })
})

for (const forceCloseConnections of everyForce) {
  t.test(`with forceCloseConnections ${forceCloseConnections}, closing without a relay route, beside an idle connection`, async (t) => {
    const app = await startApp(t, (app) => app.get('/rest', async () => 'rest'), { server: { forceCloseConnections } })
    const client = await RawClient.dial(t, app)
    await client.send(requestText('/rest'))
    await client.answer()
    await app.close()
    await client.closed
  })
}

t.test('hooks of the app', async (t) => {
  const throwing = async (): Promise<never> => { throw new Error('thrown by the app') }

  await t.test('onClose finds the tunnels gone, and the hub still answers', async (t) => {
    const found: unknown[] = []
    const app = await startApp(t, (app) => {
      app.relay('/relay/:network')
      app.addHook('onClose', async () => {
        const { relayHub } = app
        found.push(relayHub.peers(), relayHub.channels(), relayHub.disconnect({ channel: 'home', id: 'x' }))
        found.push(relayHub.stats().detached['shutdown'], relayHub.isClosing)
      })
    })
    await openTunnel(t, app)
    await app.close()
    t.same(found, [[], [], 0, 1, true])
  })

  for (const order of ['before', 'after']) {
    await t.test(`preClose, added ${order} the plugin, may end tunnels itself`, async (t) => {
      const app = Fastify() as FastifyInstance
      const count: number[] = []
      const hook = async (): Promise<void> => {
        for (const { id, channel } of app.relayHub.peers()) count.push(app.relayHub.disconnect({ id, channel: channel.name }, 'bye'))
      }
      if (order === 'before') app.addHook('preClose', hook)
      await app.register(spanzaRelay, { path: '/relay/:network' })
      if (order === 'after') app.addHook('preClose', hook)
      await startListening(t, app)
      const tunnel = await openTunnel(t, app)
      await app.close()
      await tunnel.closed
      t.same(count, order === 'before' ? [1] : [], 'the plugin has closed what a later hook would')
      t.match(tunnel.closing, order === 'before' ? { code: 6, text: 'bye' } : { code: 7 })
    })
  }

  await t.test('onClose that throws', async (t) => {
    const app = Fastify() as FastifyInstance
    app.addHook('onClose', throwing)
    await app.register(spanzaRelay, { path: '/relay/:network' })
    app.addHook('onClose', throwing)
    await app.listen({ port: 0, host: '127.0.0.1' })
    const tunnel = await openTunnel(t, app)
    await t.rejects(app.close(), { message: 'thrown by the app' })
    await tunnel.closed
    t.match(tunnel.closing, { code: 7 })
    t.equal(Object.hasOwn(app.server, 'emit'), false)
  })

  await t.test('a listener of the hub that closes the app', async (t) => {
    const app = await startRelay(t)
    const closed = new Promise<void>((resolve) => app.relayHub.on('attach', () => { app.close().then(resolve) }))
    const tunnel = await openTunnel(t, app)
    await closed
    await tunnel.closed
    t.match(tunnel.closing, { code: 7 })
  })
})

t.test('a server that is closed behind Fastify\'s back keeps its tunnels until the app closes', async (t) => {
  const app = await startRelay(t)
  const [a, b] = [await openTunnel(t, app), await openTunnel(t, app)]
  const closed = once(app.server, 'close')
  app.server.close()
  a.send(Buffer.from('still there'))
  t.equal(String(await b.datagrams.next()), 'still there')
  await app.close()
  await Promise.all([closed, a.closed, b.closed])
  t.match(a.closing, { code: 7 })
})

t.test('an app that is closed does not keep another one with the same port from listening', async (t) => {
  const app = await startRelay(t)
  const { port } = app.server.address() as AddressInfo
  await openTunnel(t, app)
  await app.close()
  const next = await startApp(t, (app) => app.relay('/relay/:network'), { listen: { port } })
  await openTunnel(t, next)
})

/** Whatever the plugin may change in a server. */
function stateOf (server: Server): { own: object, listeners: Record<string, unknown[]> } {
  const events = ['upgrade', 'connection', 'secureConnection', 'request', 'close', 'error', 'clientError', 'connect', 'checkContinue']
  return {
    own: { emit: Object.getOwnPropertyDescriptor(server, 'emit'), shouldUpgradeCallback: Object.getOwnPropertyDescriptor(server, 'shouldUpgradeCallback') },
    listeners: Object.fromEntries(events.map((event) => [event, server.listeners(event)]))
  }
}

async function testEcho (t: Test, app: FastifyInstance): Promise<void> {
  const socket = new WebSocket(`ws://127.0.0.1:${(app.server.address() as AddressInfo).port}/echo`)
  await once(socket, 'open')
  socket.send('hello')
  t.equal(String((await once(socket, 'message'))[0]), 'hello')
}

for (const order of ['before', 'after']) {
  t.test(`closing restores the server, also with @fastify/websocket registered ${order}, whose sockets are closed as well`, async (t) => {
    /** The state of a server that has been used and closed. */
    const closedState = async (withRelay: boolean) => {
      const servers: Server[] = []
      const app = Fastify({
        serverFactory: (handler) => {
          servers.push(createServer(handler))
          return servers[0]!
        }
      }) as FastifyInstance
      const pristine = stateOf(app.server)
      if (order === 'before') await app.register(websocket)
      if (withRelay) await app.register(spanzaRelay, { path: '/relay/:network' })
      if (order === 'after') await app.register(websocket)
      app.register(async (app) => {
        app.get('/echo', { websocket: true }, (socket) => { socket.on('message', (message: Buffer) => socket.send(String(message))) })
      })
      await startListening(t, app)
      await testEcho(t, app)
      const tunnel = withRelay ? await openTunnel(t, app) : undefined
      await app.close()
      await tunnel?.closed
      return { pristine, closed: stateOf(app.server) }
    }
    const [bare, relayed] = [await closedState(false), await closedState(true)]
    t.same(relayed.closed.own, relayed.pristine.own)
    const counts = ({ listeners }: { listeners: Record<string, unknown[]> }) => Object.entries(listeners).map(([event, { length }]) => [event, length])
    t.same(counts(relayed.closed), counts(bare.closed), 'as many listeners as without the plugin')
  })
}
