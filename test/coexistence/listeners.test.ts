import dns from 'node:dns'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { isIP, type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import Fastify, { type FastifyInstance, type FastifyServerFactory } from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { startPair, testRestUnchanged, testTunnels, orders } from '../helpers/coexistence.ts'
import { RawClient, requestText, upgradeText, type DialOptions } from '../helpers/raw-client.ts'
import { openBare, serverCertificate, startListening, testJoined, testRefusal } from '../helpers/relay-app.ts'

// Servers that are several, or not made by Fastify.

t.test('a localhost of IPv4 and IPv6', async (t) => {
  const start = async (t: Test): Promise<FastifyInstance> => {
    const app = Fastify()
    await app.register(spanzaRelay)
    app.relay('/relay/:channel')
    app.get('/rest', async (request) => ({ upgrade: request.headers.upgrade }))
    app.post('/rest', async (request) => request.body)
    return await startListening(t, app, { host: 'localhost' })
  }
  const hosts = ['127.0.0.1', '::1']
  // Fastify asks for all addresses of localhost and makes a server for each; not every machine names both.
  const { lookup } = dns
  const lookUpBoth = (name: string, options: dns.LookupOptions, callback: (...found: unknown[]) => void): void => {
    if (name !== 'localhost' || options.all !== true) return lookup(name, options, callback)
    callback(null, hosts.map((address) => ({ address, family: isIP(address) })))
  }
  dns.lookup = lookUpBoth as typeof lookup
  t.teardown(() => { dns.lookup = lookup })
  const app = await start(t)
  if (app.addresses().length < 2) return t.pass('two servers', { skip: 'IPv6 cannot be had here' })
  t.same((app.addresses() as AddressInfo[]).map(({ address }) => address).sort(), hosts)

  await t.test('has tunnels on both, that meet', async (t) => {
    for (const host of hosts) await testTunnels(t, app, '', {}, { host })
    await testJoined(t, await openBare(t, app, '/relay/both', {}, { host: hosts[0]! }), await openBare(t, app, '/relay/both', {}, { host: hosts[1]! }))
    t.same(app.relayHub.peers().filter(({ channel }) => channel.name === 'both').map(({ address }) => address).sort(), ['127.0.0.1', '::1'])
  })

  await t.test('has refusals on both', async (t) => {
    for (const host of hosts) await testRefusal(t, app, upgradeText('/relay/x', { headers: { Upgrade: 'h2c' } }), { statusCode: 400, code: 'FST_RELAY_PROTOCOL' }, { host })
  })

  await t.test('serves REST on both', async (t) => {
    for (const host of hosts) {
      const client = await RawClient.dial(t, app, { host })
      for (let i = 0; i < 2; i++) {
        await client.send(requestText('/rest'))
        t.match(await client.answer(), { statusCode: 200, headers: { connection: 'keep-alive' } })
      }
      // An offer of a protocol that nobody speaks is no upgrade; Node 20 may end the connection behind the answer.
      await client.send(requestText('/rest', { headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }))
      t.equal((await client.answer()).body, '{"upgrade":"h2c"}')
    }
  })

  await t.test('closes with tunnels on both', async (t) => {
    const app = await start(t)
    const open = await Promise.all(hosts.map(async (host) => await openBare(t, app, `/relay/${host}`, {}, { host })))
    await app.close()
    await Promise.all(open.map(async ({ closed }) => await closed))
  })
})

/** What another handler on the same server does with its upgrades. */
function answerTheirs (request: IncomingMessage, socket: Duplex): void {
  if (request.url!.startsWith('/theirs')) socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: theirs\r\n\r\n')
  else socket.end('HTTP/1.1 404 Theirs\r\nContent-Length: 0\r\n\r\n')
}

interface Made {
  factory: FastifyServerFactory
  dial?: DialOptions
  /** Called when the plugin is registered. */
  later?: (server: Server) => void
  hasUpgrades?: boolean
}

const shared: FastifyServerFactory = (handler) => createServer((request, response) => {
  if (request.url!.startsWith('/theirs')) response.end('theirs')
  else handler(request, response)
})

const servers: Record<string, Made> = {
  'an http server of the app': { factory: (handler) => createServer(handler) },
  'an http server with options of its own': { factory: (handler) => createServer({ keepAlive: true, noDelay: false, highWaterMark: 1024, insecureHTTPParser: false }, handler) },
  'an https server of the app': { factory: (handler) => createTlsServer(serverCertificate(), handler), dial: { tls: true } },
  'a server shared with another handler': { factory: shared },
  'a server shared with another handler that listened to upgrades before': {
    factory: (handler, options) => shared(handler, options).on('upgrade', answerTheirs), hasUpgrades: true
  },
  'a server shared with another handler that listens to upgrades after': {
    factory: shared, later: (server) => server.on('upgrade', answerTheirs), hasUpgrades: true
  },
  'a server shared with another handler that listens before all others': {
    factory: shared, later: (server) => server.prependListener('upgrade', answerTheirs), hasUpgrades: true
  }
}

for (const [what, { factory, dial = {}, later = () => {}, hasUpgrades = false }] of Object.entries(servers)) {
  t.test(`serverFactory with ${what}`, async (t) => {
    const pair = await startPair(t, orders['after the relay']!, (app) => later(app.server), { server: { serverFactory: factory } })
    const { app } = pair
    for (let i = 0; i < 2; i++) {
      await testTunnels(t, app, '', {}, dial)
      await testRefusal(t, app, upgradeText('/relay/x', { headers: { Upgrade: 'h2c' } }), { statusCode: 400, code: 'FST_RELAY_PROTOCOL' }, dial)
      if (hasUpgrades) {
        const client = await RawClient.dial(t, app, dial)
        await client.send(upgradeText('/theirs'))
        t.match(await client.head(), { statusCode: 101, headers: { upgrade: 'theirs' } })
        await client.closed
      }
    }
    await testRestUnchanged(t, pair, dial)
    const open = await openBare(t, app, '/relay/x', {}, dial)
    await app.close()
    await open.closed
    t.equal(app.server.listenerCount('upgrade'), hasUpgrades ? 1 : 0, 'only theirs is left')
  })
}
