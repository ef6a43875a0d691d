import Fastify from 'fastify'
import t from 'tap'
import { HandshakeLimits } from '../../lib/admission/handshake-limits.ts'
import spanzaRelay, { type HubOptions } from '../../lib/index.ts'
import { readHubOptions } from '../../lib/hub/hub-options.ts'
import { Mailbox } from '../helpers/mailbox.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { askForUpgrade, openBare, startApp, startListening, testRefusal } from '../helpers/relay-app.ts'

const TRUSTED = { trustProxy: '127.0.0.1' }
const from = (address: string) => ({ headers: { 'X-Forwarded-For': address } })

t.test('unfinished handshakes of one address', async (t) => {
  const released: Array<() => void> = []
  const app = await startApp(t, (app) => app.relay('/relay/:channel', {
    onRequest: async () => await new Promise<void>((resolve) => { released.push(resolve) })
  }), { server: TRUSTED, relay: { maxClientUnfinishedHandshakes: 2 } })
  const begun = async (path: string, address: string): Promise<RawClient> => {
    const before = released.length
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText(path, from(address)))
    while (released.length === before) await new Promise((resolve) => setImmediate(resolve))
    return client
  }
  const tooMany = async (address: string): Promise<void> => {
    await testRefusal(t, app, upgradeText('/relay/x', from(address)), {
      statusCode: 429, code: 'FST_RELAY_CLIENT_UNFINISHED', headers: { 'retry-after': /^\d+$/ }
    })
  }

  const [first, second] = [await begun('/relay/1', '203.0.113.1'), await begun('/relay/2', '203.0.113.1')]
  await tooMany('203.0.113.1')
  await tooMany('::ffff:203.0.113.1')
  t.equal(released.length, 2, 'the hooks of the route have not run')
  await begun('/relay/3', '203.0.113.2')
  await begun('/relay/4', '::ffff:203.0.113.3')
  await begun('/relay/5', '2001:db8:1:1::1')
  await begun('/relay/6', '2001:db8:1:1::2')
  await tooMany('2001:db8:1:1:ffff::')
  await begun('/relay/7', '2001:db8:1:2::1')

  // What has finished, by a tunnel or by leaving, counts no more.
  released[0]!()
  t.equal((await first.head()).statusCode, 101)
  await begun('/relay/8', '203.0.113.1')
  await tooMany('203.0.113.1')
  const gone = new Promise((resolve) => app.relayHub.once('refuse', resolve))
  second.socket.destroy()
  await gone
  await begun('/relay/9', '203.0.113.1')
  await tooMany('203.0.113.1')
})

t.test('the rate of handshakes of one address', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay/:channel')
    app.relay('/refused', { onRequest: async (_request, reply) => await reply.code(401).send() })
  }, { server: TRUSTED, relay: { clientHandshakesPerSecond: 1 } })
  // As many at once as can be, for those that come back with time must not be enough for all.
  const paths = Array.from({ length: 30 }, (_, i) => i < 3 ? `/relay/${i}` : '/refused')
  const answers = await Promise.all(paths.map(async (path) => await askForUpgrade(t, app, path, from('203.0.113.1'))))
  const limited = answers.filter(({ statusCode }) => statusCode === 429)
  t.ok(limited.length > 0 && limited.length <= 25, 'five in a burst, refused or not')
  for (const { headers, body } of limited) {
    t.match(headers, { connection: 'close', 'retry-after': /^\d+$/ })
    t.match(JSON.parse(body), { code: 'FST_RELAY_CLIENT_RATE', message: 'Too many handshakes from 203.0.113.1 (clientHandshakesPerSecond: 1)' })
  }
  t.equal(app.relayHub.stats().refused['FST_RELAY_CLIENT_RATE'], limited.length)
  await openBare(t, app, '/relay/other', from('203.0.113.2'))
  await openBare(t, app, '/relay/own')
})

t.test('without trustProxy the header changes nothing', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:channel', { onRequest: () => {} }), { relay: { maxClientUnfinishedHandshakes: 1 } })
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay/1', from('203.0.113.1')))
  await testRefusal(t, app, upgradeText('/relay/2', from('203.0.113.2')), { statusCode: 429, code: 'FST_RELAY_CLIENT_UNFINISHED', message: 'Too many unfinished handshakes from 127.0.0.1 (maxClientUnfinishedHandshakes: 1)' })
})

t.test('plain requests are not limited', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay')
    app.get('/rest', async () => 'rest')
  }, { relay: { clientHandshakesPerSecond: 1 } })
  for (let i = 0; i < 20; i++) {
    t.equal((await app.inject('/rest')).statusCode, 200)
    t.equal((await app.inject('/relay')).statusCode, 426)
  }
})

t.test('unfinished handshakes of all clients together, limited before any hook', async (t) => {
  const reached = new Mailbox<string>()
  const released: Array<() => void> = []
  const app = Fastify({ trustProxy: '127.0.0.1' })
  // Registered before the plugin: what is limited before routing does not reach even this.
  app.addHook('onRequest', async (request) => reached.push(request.url))
  await app.register(spanzaRelay, { maxUnfinishedHandshakes: 2 })
  app.get('/rest', async () => 'rest')
  app.relay('/relay/:channel', { onRequest: async () => await new Promise<void>((resolve) => { released.push(resolve) }) })
  await startListening(t, app)

  const first = await RawClient.dial(t, app)
  await first.send(upgradeText('/relay/1', from('203.0.113.1')))
  await reached.next()
  const second = await RawClient.dial(t, app)
  await second.send(upgradeText('/relay/2', from('203.0.113.2')))
  await reached.next()
  await testRefusal(t, app, upgradeText('/relay/3', from('203.0.113.3')), {
    statusCode: 503, code: 'FST_RELAY_HUB_UNFINISHED', message: /maxUnfinishedHandshakes: 2/, headers: { 'retry-after': /^\d+$/ }
  })
  t.same(reached.all, ['/relay/1', '/relay/2'])
  t.equal((await app.inject('/rest')).body, 'rest', 'other routes are served')
  released[0]!()
  t.equal((await first.head()).statusCode, 101)
  const third = await RawClient.dial(t, app)
  await third.send(upgradeText('/relay/3', from('203.0.113.3')))
  while (released.length < 3) await new Promise((resolve) => setImmediate(resolve))
  released[2]!()
  t.equal((await third.head()).statusCode, 101)
})

t.test('the rate of handshakes of all clients together', async (t) => {
  let hooks = 0
  const app = await startApp(t, (app) => {
    app.relay('/relay/:channel', { onRequest: async () => { hooks++ } })
  }, { server: TRUSTED, relay: { handshakesPerSecond: 1 } })
  const answers = await Promise.all(Array.from({ length: 16 }, async (_, i) =>
    await askForUpgrade(t, app, `/relay/${i}`, from(`203.0.113.${i}`))))
  const limited = answers.filter(({ statusCode }) => statusCode === 503)
  t.ok(limited.length > 0 && limited.length <= 11, 'five in a burst')
  for (const { headers, body } of limited) {
    t.match(headers, { connection: 'close', 'retry-after': /^\d+$/ })
    t.match(JSON.parse(body), { code: 'FST_RELAY_HUB_RATE', message: /handshakesPerSecond: 1/ })
  }
  t.equal(hooks, answers.length - limited.length, 'the hooks of the route have not run for them')
  t.equal(app.relayHub.stats().refused['FST_RELAY_HUB_RATE'], limited.length)
})

t.test('a client above its own limits takes nothing from what belongs to all', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay/:channel'), { server: TRUSTED, relay: { handshakesPerSecond: 2, clientHandshakesPerSecond: 1 } })
  for (let i = 0; i < 30; i++) await askForUpgrade(t, app, `/relay/${i}`, from('203.0.113.1'))
  t.ok(app.relayHub.stats().refused['FST_RELAY_CLIENT_RATE']! >= 10)
  await openBare(t, app, '/relay/other', from('203.0.113.2'))
})

t.test('HandshakeLimits', async (t) => {
  const limitsOf = (options: HubOptions): HandshakeLimits => new HandshakeLimits(readHubOptions(options), 0)
  const begin = (limits: HandshakeLimits, address: string | undefined, now: number) => {
    const begun = limits.begin(address, now)
    return typeof begun === 'function' ? begun : begun.code
  }

  t.test('gives back the rate with time', (t) => {
    const limits = limitsOf({ maxClientUnfinishedHandshakes: 100, clientHandshakesPerSecond: 2 })
    for (let i = 0; i < 10; i++) t.type(begin(limits, '192.0.2.1', 0), 'function')
    t.equal(begin(limits, '192.0.2.1', 0), 'FST_RELAY_CLIENT_RATE')
    t.equal(begin(limits, '192.0.2.1', 499), 'FST_RELAY_CLIENT_RATE')
    t.type(begin(limits, '192.0.2.1', 500), 'function')
    t.equal(begin(limits, '192.0.2.1', 500), 'FST_RELAY_CLIENT_RATE')
    t.end()
  })

  t.test('remembers so many clients, and forgets those first that were quiet for longest', (t) => {
    const limits = limitsOf({ handshakesPerSecond: 1e9, maxClientUnfinishedHandshakes: 1, clientHandshakesPerSecond: 1 })
    const address = (i: number): string => `10.0.${i >> 8}.${i & 255}`
    t.type(begin(limits, '192.0.2.1', 0), 'function')
    for (let i = 0; i < 20_000; i++) (begin(limits, address(i), 0) as () => void)()
    t.equal(begin(limits, '192.0.2.1', 0), 'FST_RELAY_CLIENT_UNFINISHED', 'but nobody with an unfinished handshake')
    for (let i = 0; i < 4; i++) (begin(limits, address(19_999), 0) as () => void)()
    t.equal(begin(limits, address(19_999), 0), 'FST_RELAY_CLIENT_RATE')
    for (let i = 0; i < 10_000; i++) (begin(limits, address(i), 0) as () => void)()
    t.type(begin(limits, address(19_999), 0), 'function', 'forgotten')
    t.end()
  })

  t.test('does not limit where there is no address', (t) => {
    const limits = limitsOf({ handshakesPerSecond: 1e9, maxClientUnfinishedHandshakes: 1, clientHandshakesPerSecond: 1 })
    for (let i = 0; i < 100; i++) t.type(begin(limits, undefined, 0), 'function')
    t.end()
  })
})
