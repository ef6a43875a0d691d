import { inspect } from 'node:util'
import Fastify from 'fastify'
import t from 'tap'
import spanzaRelay, { type HubOptions, type SpanzaRelayOptions } from '../../lib/index.ts'
import { hubOptionsIn, readHubOptions } from '../../lib/hub/hub-options.ts'

const defaults: Required<HubOptions> = {
  maxPacketSize: 2048,
  maxPeers: 10_000,
  maxChannelPeers: 256,
  maxClientPeers: 256,
  maxKeylessPeers: 16,
  handshakeTimeout: 10_000,
  maxUnfinishedHandshakes: 1000,
  maxClientUnfinishedHandshakes: 32,
  handshakesPerSecond: 500,
  channelHandshakesPerSecond: 50,
  clientHandshakesPerSecond: 20,
  pairTimeout: 60_000,
  halfClosedTimeout: 600_000,
  keepaliveInterval: 25_000,
  keepaliveTimeout: 75_000,
  idleTimeout: 0,
  writeTimeout: 30_000,
  closeGrace: 5000
}
const names = Object.keys(defaults) as Array<keyof HubOptions>

t.test('hub-wide options have defaults', async (t) => {
  t.same(readHubOptions({}), defaults)
  t.same(hubOptionsIn(defaults), names)
  t.same(hubOptionsIn({ path: '/x', hosts: [], maxPeers: undefined, closeGrace: 0 }), ['closeGrace'])
  const app = Fastify()
  await app.register(spanzaRelay, { writeTimeout: 7 })
  t.same(app.relayHub.options, { ...defaults, writeTimeout: 7 })
  await app.close()
})

/** Each option's smallest and largest value. */
const ranges: Array<[keyof HubOptions, number, number]> = [
  ['maxPacketSize', 1, 65535],
  ['maxPeers', 1, 1e9],
  ['maxChannelPeers', 2, 1e9],
  ['maxClientPeers', 1, 1e9],
  ['maxKeylessPeers', 0, 1e9],
  ['handshakeTimeout', 1, 2 ** 31 - 1],
  ['maxUnfinishedHandshakes', 1, 1e9],
  ['maxClientUnfinishedHandshakes', 1, 1e9],
  ['handshakesPerSecond', 1, 1e9],
  ['channelHandshakesPerSecond', 1, 1e9],
  ['clientHandshakesPerSecond', 1, 1e9],
  ['pairTimeout', 1, 2 ** 31 - 1],
  ['halfClosedTimeout', 1, 2 ** 31 - 1],
  ['keepaliveInterval', 1, 2 ** 31 - 1],
  ['keepaliveTimeout', 1, 2 ** 31 - 1],
  ['idleTimeout', 0, 2 ** 31 - 1],
  ['writeTimeout', 1, 2 ** 31 - 1],
  ['closeGrace', 0, 2 ** 31 - 1]
]

t.test('a hub-wide option that cannot be is an error with its name and value', async (t) => {
  t.same(ranges.map(([name]) => name), names, 'all of them')
  for (const [name, smallest, largest] of ranges) {
    const values = [smallest - 1, largest + 1, 1.5, NaN, Infinity, String(smallest), true, []]
    for (const value of values) {
      await t.rejects(async () => await Fastify().register(spanzaRelay, { [name]: value }), {
        code: 'FST_RELAY_OPTION',
        message: `The option ${name} must be a whole number from ${smallest} to ${largest}, not ${inspect(value)}`
      })
    }
    if (name.startsWith('keepalive')) continue // these two depend on each other
    for (const value of [smallest, largest]) t.equal(readHubOptions({ [name]: value })[name], value, `${name} may be ${value}`)
  }
  t.throws(() => readHubOptions({ keepaliveInterval: 10, keepaliveTimeout: 10 }),
    { code: 'FST_RELAY_OPTION', message: 'The option keepaliveTimeout must be above keepaliveInterval (10), not 10' })
})

t.test('an option of a route that cannot be is an error with its name and value', async (t) => {
  const bad: Array<[Record<string, unknown>, string]> = [
    [{ hosts: 'relay.example.com' }, "The option hosts must be a list of host names, not 'relay.example.com'"],
    [{ hosts: [] }, 'The option hosts must be a list of host names, not []'],
    [{ hosts: ['a', 5] }, "The option hosts must be a list of host names, not [ 'a', 5 ]"],
    [{ protocols: [] }, 'The option protocols must be a list of some of spanza, UoTLV/1, websocket, not []'],
    [{ protocols: ['websockets'] }, "The option protocols must be a list of some of spanza, UoTLV/1, websocket, not [ 'websockets' ]"],
    [{ protocols: 'spanza' }, "The option protocols must be a list of some of spanza, UoTLV/1, websocket, not 'spanza'"],
    [{ framings: ['wg', 'cobs'] }, "The option framings must be a list of some of wg, len16, raw, not [ 'wg', 'cobs' ]"],
    [{ scope: 5 }, 'The option scope must be a string, not 5'],
    [{ identify: 'me' }, "The option identify must be a function, not 'me'"],
    [{ plain: true }, 'The option plain must be a function, not true']
  ]
  for (const [options, message] of bad) {
    await t.rejects(async () => await Fastify().register(spanzaRelay, { path: '/relay', ...options } as SpanzaRelayOptions), { code: 'FST_RELAY_OPTION', message })
    const app = Fastify()
    await app.register(spanzaRelay)
    t.throws(() => app.relay('/relay', options), { code: 'FST_RELAY_OPTION', message })
  }
})

t.test('a misspelled option is an error that names the right one', async (t) => {
  const misspelled: Array<[string, string]> = [
    ['identfy', 'identify'], ['Identify', 'identify'], ['idenitfy', 'identify'], ['scop', 'scope'], ['host', 'hosts'], ['orgins', 'origins'],
    ['protocol', 'protocols'], ['webSocket', 'websocket'], ['webSockts', 'webSockets'], ['opn', 'open'], ['targets', 'target'],
    // A guard that would guard nothing.
    ['onRequst', 'onRequest'], ['onrequest', 'onRequest'], ['prehandler', 'preHandler'], ['preHandlers', 'preHandler'], ['preValidaton', 'preValidation'],
    ['constraint', 'constraints'], ['maxPeer', 'maxPeers'], ['handshakeTimout', 'handshakeTimeout']
  ]
  for (const [name, meant] of misspelled) {
    const refused = (of: string) => ({ code: 'FST_RELAY_UNKNOWN_OPTION', message: `${name} is not an option of ${of}; did you mean ${meant}?` })
    for (const path of [{}, { path: '/relay' }]) {
      await t.rejects(async () => await Fastify().register(spanzaRelay, { ...path, [name]: 5 } as SpanzaRelayOptions), refused('the registration'))
    }
    const app = Fastify()
    await app.register(spanzaRelay)
    t.throws(() => app.relay('/relay', { [name]: 5 }), refused('a relay route'))
  }
})

t.test('options of Fastify and of other plugins pass, and arrive', async (t) => {
  const app = Fastify()
  const theirs: object[] = []
  await app.register(spanzaRelay)
  app.addHook('onRoute', (route) => { theirs.push(route) })
  const options = {
    swagger: { hide: true },
    rateLimit: false,
    helmet: {},
    cors: {},
    csrf: true,
    auth: 'user',
    compress: false,
    security: [],
    tags: ['x'],
    summary: 'a relay',
    onRequestAbort: async () => {},
    attachValidation: true,
    handlerTimeout: 5,
    logSerializers: {},
    config: {},
    schema: {},
    websocket: false,
    wsHandler: undefined
  }
  app.relay('/relay', options)
  t.match(theirs, [{ ...options, config: Object }])
  await app.register(spanzaRelay, { path: '/second', ...options } as SpanzaRelayOptions)
  t.match(theirs[1], { swagger: { hide: true } })
  await app.close()
})

t.test("what is a relay route's own to set is an error, not ignored", async (t) => {
  const app = Fastify()
  await app.register(spanzaRelay)
  for (const [name, value] of Object.entries({ handler: () => {}, method: 'POST', url: '/x', exposeHeadRoute: true })) {
    t.throws(() => app.relay('/relay', { [name]: value }), { code: 'FST_RELAY_OPTION', message: new RegExp(`^The option ${name} must be left out: `) })
  }
  t.throws(() => app.relay('/relay', { open: 1 } as object), { message: 'The option open must be true or false, not 1' })
})
