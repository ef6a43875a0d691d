import Fastify, {
  type FastifyInstance, type FastifyPluginAsync, type FastifyReply, type FastifyRequest, type FastifyTypeProvider, type onRequestHookHandler
} from 'fastify'
import t from 'tap'
import spanzaRelay, {
  errors, type CloseReason, type DetachReason, type HubStats, type Identified, type PeerInfo, type RefusalInfo,
  type RelayErrorCode, type RelayHub, type RelayRouteOptions, type SpanzaRelayOptions
} from '../../lib/index.ts'

// Assertions for the compiler: `npm run check-types` is the test. Nothing here is called.

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false

function isType<Expected> () {
  return <Actual>(_value: Actual, ..._proof: Equal<Actual, Expected> extends true ? [] : [expected: Expected]): void => {}
}

declare module 'fastify' {
  interface FastifyRequest {
    typesTestUser?: { networks: string[], wireguardKey: string }
  }
  interface FastifyContextConfig {
    typesTest?: string
  }
}

const checks = async (app: FastifyInstance): Promise<void> => {
  await app.register(spanzaRelay)
  await app.register(spanzaRelay, { maxPacketSize: 1500, closeGrace: 100 })
  await app.register(spanzaRelay, {
    path: '/relay/:network',
    hosts: ['relay.example.com'],
    protocols: ['spanza', 'UoTLV/1'],
    framings: ['wg', 'len16', 'raw'],
    scope: 'all',
    onRequest: async (request) => { isType<string | undefined>()(request.headers.authorization) },
    identify: async (request) => {
      isType<unknown>()(request.params)
      return { id: 'a', channel: 'b', publicKey: new Uint8Array(32), context: request }
    }
  })

  // As with Fastify's own shorthands: chained, with the route's generic, with one hook or several.
  isType<FastifyInstance>()(app.relay('/a').relay('/b', {}))
  app.relay<{ Params: { network: string }, Querystring: { token?: string }, Headers: { 'x-key': string } }>('/relay/:network', {
    onRequest: async (request) => {
      isType<string>()(request.params.network)
      isType<string | undefined>()(request.query.token)
    },
    preHandler: [
      async (request) => { isType<string>()(request.params.network) },
      (request, reply, done) => {
        isType<string>()(request.params.network)
        reply.header('x-name', request.headers['x-key'])
        done()
      }
    ],
    identify: function (request) {
      isType<FastifyInstance>()(this)
      isType<string>()(request.params.network)
      if (request.typesTestUser?.networks.includes(request.params.network) !== true) throw new errors.FST_RELAY_CLOSING()
      return { channel: request.params.network, publicKey: request.typesTestUser.wireguardKey }
    },
    plain: function (request, reply) {
      isType<FastifyInstance>()(this)
      isType<string>()(request.params.network)
      return reply.code(200).send('hello')
    }
  })
  const authenticate: onRequestHookHandler = (_request, _reply, done) => done()
  app.relay('/hooks', { onRequest: authenticate, config: { typesTest: 'thing' }, schema: { params: {} }, constraints: { host: 'x' }, bodyLimit: 1, logLevel: 'warn' })
  app.relay('/default', { identify: () => ({}), open: true })
  app.relay('/const', { protocols: ['spanza'] as const, hosts: ['a'] as const })

  // @ts-expect-error nothing is no identity
  app.relay('/nothing', { identify: () => {} })
  // @ts-expect-error nothing is no identity
  app.relay('/undefined', { identify: async () => undefined })
  // @ts-expect-error unknown option
  app.relay('/wrong', { host: ['a'] })
  // @ts-expect-error unknown protocol
  app.relay('/wrong', { protocols: ['websockets'] })
  // @ts-expect-error unknown framing
  app.relay('/wrong', { framings: ['cobs'] })
  // @ts-expect-error an id is a string
  app.relay('/wrong', { identify: () => ({ id: 5 }) })
  // @ts-expect-error the same, async
  app.relay('/wrong', { identify: async () => ({ channel: 5 }) })
  // @ts-expect-error a HEAD route is the app's own to define
  app.relay('/wrong', { exposeHeadRoute: true })
  // @ts-expect-error a path is a string
  app.relay(5)
  // @ts-expect-error a number is a number
  await app.register(spanzaRelay, { maxPeers: '5' })

  const child: FastifyPluginAsync = async (scope) => {
    scope.relay('/child')
    isType<RelayHub>()(scope.relayHub)
  }
  await app.register(child, { prefix: '/v1' })

  const { relayHub } = app
  isType<PeerInfo[]>()(relayHub.peers())
  isType<HubStats>()(relayHub.stats())
  isType<number>()(relayHub.disconnect({ channel: 'home', id: 'me' }))
  isType<number>()(relayHub.disconnect({ channel: 'home', id: 'me', scope: '/x', kind: 'packet' }, 'because'))
  relayHub.on('attach', (peer) => { isType<PeerInfo>()(peer) })
  relayHub.once('detach', (peer, { reason, text, duration }) => {
    isType<PeerInfo>()(peer)
    isType<DetachReason>()(reason)
    isType<string>()(text)
    isType<number>()(duration)
  })
  relayHub.on('refuse', (refusal) => {
    isType<RefusalInfo>()(refusal)
    isType<string | undefined>()(refusal.code)
  })
  // @ts-expect-error no such event
  relayHub.on('attached', () => {})
}

/** A type provider, of the simplest kind: what the schema is, the value is. */
interface SchemaIsType extends FastifyTypeProvider {
  validator: this['schema']
  serializer: this['schema']
}

const providerChecks = (app: FastifyInstance): void => {
  const typed = app.withTypeProvider<SchemaIsType>()
  typed.relay('/relay/:network', {
    schema: { params: {} as { network: 'home' | 'work' } },
    onRequest: async (request) => { isType<'home' | 'work'>()(request.params.network) },
    identify: (request) => {
      isType<'home' | 'work'>()(request.params.network)
      return { channel: request.params.network }
    }
  })
}

const otherServers = (): void => {
  const https = Fastify({ https: {} })
  https.relay('/relay', { onRequest: async (request) => { isType<boolean>()(request.raw.complete) } })
  const http2 = Fastify({ http2: true, https: { allowHTTP1: true } })
  http2.relay('/relay', { identify: (request) => ({ id: request.ip }) })
}

const names = (): void => {
  isType<RelayErrorCode>()('FST_RELAY_CLOSING' as RelayErrorCode)
  const reason: CloseReason = 'replaced'
  const identified: Identified = { publicKey: 'x', id: undefined }
  const options: RelayRouteOptions = { identify: (_request: FastifyRequest) => identified, plain: (_request, reply: FastifyReply) => reply }
  const all: SpanzaRelayOptions = { ...options, path: '/relay', maxPeers: 5 }
  isType<[CloseReason, SpanzaRelayOptions]>()([reason, all] as [CloseReason, SpanzaRelayOptions])
}

t.test('the compiler is the test of the types', (t) => {
  for (const check of [checks, providerChecks, otherServers, names]) t.type(check, 'function')
  t.end()
})
