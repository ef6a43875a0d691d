import dns from 'node:dns'
import { cpSync } from 'node:fs'
import { once } from 'node:events'
import { createServer, Server, type IncomingMessage } from 'node:http'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Duplex } from 'node:stream'
import type { AddressInfo, Socket } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import websocket from '@fastify/websocket'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import spanzaRelay from '../../lib/index.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, startListening, testJoined } from '../helpers/relay-app.ts'

const canBeAsked = 'shouldUpgradeCallback' in createServer()

/** Whatever somebody may change in a server that has to do with upgrades. */
function stateOf (server: Server) {
  return {
    ownEmit: Object.getOwnPropertyDescriptor(server, 'emit'),
    shouldUpgradeCallback: Object.getOwnPropertyDescriptor(server, 'shouldUpgradeCallback'),
    listeners: Object.fromEntries(['upgrade', 'connection', 'secureConnection'].map((event) => [event, server.listeners(event)]))
  }
}

/** What another plugin does that takes upgrades of its own. */
function takeOthers (app: FastifyInstance): string[] {
  const taken: string[] = []
  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
    taken.push(request.url!)
    socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n')
  })
  return taken
}

let channels = 0

/** Tests two tunnels in a channel of their own; the route has the channel as its last parameter. */
async function testTunnels (t: Test, app: FastifyInstance, path = '/relay'): Promise<void> {
  const url = `${path}/${++channels}`
  await testJoined(t, await openBare(t, app, url), await openBare(t, app, url))
}

async function echo (app: FastifyInstance, path: string): Promise<string> {
  const { port } = app.server.address() as AddressInfo
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`)
  return await new Promise((resolve, reject) => {
    socket.on('open', () => socket.send('hello'))
    socket.on('message', (message) => {
      resolve(String(message))
      socket.close()
    })
    socket.on('error', reject)
  })
}

for (const order of ['before', 'after', 'when the server listens']) {
  t.test(`another plugin that listens ${order} gets its upgrades, and only those`, async (t) => {
    let taken: string[] = []
    const app = Fastify()
    if (order === 'before') taken = takeOthers(app)
    await app.register(spanzaRelay)
    app.relay('/relay/:channel')
    if (order === 'after') taken = takeOthers(app)
    await startListening(t, app)
    if (order === 'when the server listens') taken = takeOthers(app)

    await testTunnels(t, app)
    for (const path of ['/theirs', '/nowhere']) {
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText(path))
      t.match(await client.head(), { statusCode: 101, headers: { upgrade: 'echo' } })
      await client.closed
    }
    await testTunnels(t, app)
    t.same(taken, ['/theirs', '/nowhere'])
  })
}

for (const order of ['before', 'after']) {
  t.test(`with @fastify/websocket registered ${order}, both work, in child scopes, too`, async (t) => {
    const app = Fastify()
    if (order === 'before') await app.register(websocket)
    await app.register(spanzaRelay)
    if (order === 'after') await app.register(websocket)
    for (const prefix of ['', '/child']) {
      await app.register(async (scope) => {
        scope.relay('/relay/:channel')
        scope.relay('/slow/:channel', { onRequest: async () => await new Promise((resolve) => setImmediate(resolve)) })
        scope.get('/ws', { websocket: true }, (socket) => { socket.on('message', (message) => socket.send(String(message))) })
        scope.get('/rest', async () => ({ ok: true }))
      }, { prefix })
    }
    await startListening(t, app)
    for (const prefix of ['', '/child']) {
      t.equal(await echo(app, `${prefix}/ws`), 'hello')
      await testTunnels(t, app, `${prefix}/relay`)
      await testTunnels(t, app, `${prefix}/slow`)
      t.equal(await echo(app, `${prefix}/ws`), 'hello')
      t.same((await app.inject(`${prefix}/rest`)).json(), { ok: true })
    }
    t.same(app.relayHub.channels().map(({ scope }) => scope), ['/relay/:channel', '/slow/:channel', '/child/relay/:channel', '/child/slow/:channel'])
  })
}

t.test('what the app says about upgrades holds for those that no relay route claims', { skip: canBeAsked ? false : 'this Node does not ask' }, async (t) => {
  const asked: string[] = []
  const http = {
    shouldUpgradeCallback: (request: IncomingMessage) => {
      asked.push(request.url!)
      return request.url === '/theirs'
    }
  }
  const app = await startApp(t, (app) => {
    app.relay('/relay/:channel')
    app.get('/rest', async () => 'rest')
    takeOthers(app)
  }, { server: { http } as FastifyServerOptions })
  await testTunnels(t, app)
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/rest'))
  t.equal((await client.answer()).body, 'rest')
  await client.send(upgradeText('/theirs'))
  t.equal((await client.head()).statusCode, 101)
  t.same(asked, ['/rest', '/theirs'])
  await app.close()
  t.equal((app.server as { shouldUpgradeCallback?: unknown }).shouldUpgradeCallback, http.shouldUpgradeCallback)
})

t.test('two registrations in scopes beside each other share one arbiter, with a hub each', async (t) => {
  const app = Fastify()
  for (const name of ['a', 'b']) {
    await app.register(async (scope) => {
      await scope.register(spanzaRelay)
      scope.relay(`/${name}/:channel`)
    })
  }
  await startListening(t, app)
  t.equal(app.server.listenerCount('upgrade'), 1)
  await testTunnels(t, app, '/a')
  await testTunnels(t, app, '/b')
})

t.test('two copies of the package share one arbiter', async (t) => {
  const copy = join(t.testdir({}), 'lib')
  cpSync(fileURLToPath(new URL('../../lib', import.meta.url)), copy, { recursive: true })
  const { default: copiedRelay } = await import(pathToFileURL(join(copy, 'index.ts')).href) as { default: typeof spanzaRelay }
  t.not(copiedRelay, spanzaRelay)
  const app = Fastify()
  const before = stateOf(app.server)
  for (const [path, plugin] of [['/a/:channel', spanzaRelay], ['/b/:channel', copiedRelay]] as const) {
    await app.register(async (scope) => { await scope.register(plugin, { path }) })
  }
  await startListening(t, app)
  t.equal(app.server.listenerCount('upgrade'), before.listeners['upgrade']!.length + 1)
  await testTunnels(t, app, '/a')
  await testTunnels(t, app, '/b')
  await app.close()
  t.same(stateOf(app.server), before)
})

t.test('closing leaves the server as it was found', async (t) => {
  await t.test('alone', async (t) => {
    const app = Fastify()
    const before = stateOf(app.server)
    await app.register(spanzaRelay, { path: '/relay/:channel' })
    t.notSame(stateOf(app.server), before)
    await startListening(t, app)
    await testTunnels(t, app)
    await app.close()
    t.same(stateOf(app.server), before)
    t.equal(app.server.emit, Server.prototype.emit)
  })

  await t.test('beside others that have wrapped emit before', async (t) => {
    const app = Fastify()
    const events: unknown[] = []
    app.server.emit = function (this: Server, ...args: Parameters<Server['emit']>) {
      events.push(args[0])
      return Server.prototype.emit.apply(this, args)
    } as Server['emit']
    const before = stateOf(app.server)
    await app.register(spanzaRelay, { path: '/relay/:channel' })
    await startListening(t, app)
    await testTunnels(t, app)
    t.ok(events.includes('connection'), 'they see what they saw')
    await app.close()
    t.same(stateOf(app.server), before)
  })

  await t.test('but not what others have wrapped around it', async (t) => {
    const app = Fastify()
    await app.register(spanzaRelay, { path: '/relay/:channel' })
    const ours = app.server.emit
    const theirs = function (this: Server, ...args: Parameters<Server['emit']>) { return ours.apply(this, args) } as Server['emit']
    app.server.emit = theirs
    const shouldUpgrade = (): boolean => true
    Object.assign(app.server, { shouldUpgradeCallback: shouldUpgrade })
    await startListening(t, app)
    await testTunnels(t, app)
    await app.close()
    t.equal(app.server.emit, theirs)
    t.equal((app.server as { shouldUpgradeCallback?: unknown }).shouldUpgradeCallback, shouldUpgrade)
    t.equal(app.server.listenerCount('upgrade'), 0)
  })
})

t.test('a tracing library that patches the prototype later is asked', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:channel'))
  const { emit } = Server.prototype
  const events: unknown[] = []
  Server.prototype.emit = function (this: Server, ...args: Parameters<Server['emit']>) {
    events.push(args[0])
    return emit.apply(this, args)
  } as Server['emit']
  t.teardown(() => { Server.prototype.emit = emit })
  await testTunnels(t, app)
  t.ok(events.includes('connection'))
})

t.test('a localhost of two addresses', async (t) => {
  // Fastify asks for all addresses of localhost and makes a server for each; not every machine has two.
  const hosts = ['127.0.0.1', '127.0.0.2']
  const { lookup } = dns
  const lookUpBoth = (name: string, options: dns.LookupOptions, callback: (...found: unknown[]) => void): void => {
    if (name !== 'localhost' || options.all !== true) return lookup(name, options, callback)
    callback(null, hosts.map((address) => ({ address, family: 4 })))
  }
  dns.lookup = lookUpBoth as typeof lookup
  t.teardown(() => { dns.lookup = lookup })

  const sockets: Socket[] = []
  const startOnBoth = async (t: Test): Promise<FastifyInstance | undefined> => {
    const app = await startApp(t, (app) => {
      app.relay('/relay/:channel')
      app.get('/rest', async (request) => {
        sockets.push(request.raw.socket)
        return { offered: request.headers.upgrade }
      })
      app.post('/rest', async (request) => request.body)
    }, { listen: { host: 'localhost' } })
    if (app.addresses().length === 2) return app
    t.pass('two servers', { skip: '127.0.0.2 cannot be had here' })
  }

  await t.test('has tunnels on both, that meet', async (t) => {
    const app = await startOnBoth(t)
    if (app === undefined) return
    const [a, b] = [await openBare(t, app, '/relay/x', {}, { host: hosts[0]! }), await openBare(t, app, '/relay/x', {}, { host: hosts[1]! })]
    await testJoined(t, a, b)
    await app.close()
    await Promise.all([a.closed, b.closed])
  })

  await t.test('answers what nobody claims on both', async (t) => {
    const app = await startOnBoth(t)
    if (app === undefined) return
    for (const host of hosts) {
      for (let i = 0; i < 2; i++) {
        const client = await RawClient.dial(t, app, { host, allowHalfOpen: true })
        await client.send(requestText('/rest', { headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }))
        t.same(JSON.parse((await client.answer()).body), { offered: 'h2c' }, `${host}, ${i}`)
      }
    }
    // The clients leave their side open. No connection may stay because of that.
    await app.close()
    await Promise.all(sockets.filter((socket) => !socket.closed).map(async (socket) => await once(socket, 'close')))
  })

  await t.test('answers bodies on both, once the second server was seen', async (t) => {
    const app = await startOnBoth(t)
    if (app === undefined) return
    const headers = { Connection: 'Upgrade', Upgrade: 'h2c', 'Content-Type': 'application/json', 'Content-Length': '7' }
    const post = requestText('/rest', { method: 'POST', headers, body: '{"a":1}' })
    for (const host of hosts) {
      const first = await RawClient.dial(t, app, { host })
      await first.send(post)
      t.match((await first.head()).statusCode, host === hosts[1] ? /^(200|400)$/ : /^200$/)
      const second = await RawClient.dial(t, app, { host })
      await second.send(post)
      t.same(JSON.parse((await second.answer()).body), { a: 1 })
    }
  })

  await t.test('leaves upgrades of another plugin to it on both', async (t) => {
    const app = await startOnBoth(t)
    if (app === undefined) return
    const taken = takeOthers(app)
    for (const host of hosts) {
      const client = await RawClient.dial(t, app, { host })
      await client.send(upgradeText('/theirs'))
      t.equal((await client.head()).statusCode, 101)
    }
    t.same(taken, ['/theirs', '/theirs'])
  })
})
