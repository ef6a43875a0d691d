import t, { type Test } from 'tap'
import type { FastifyInstance, FastifyReply } from 'fastify'
import type { RelayRouteOptions, SpanzaRelayOptions } from '../../lib/index.ts'
import { RawClient, requestText, upgradeText, type Answer, type RequestParts } from '../helpers/raw-client.ts'
import { askForUpgrade, openBare, refusalsOf, startApp, testJoined, testRefusal, type Expected } from '../helpers/relay-app.ts'

t.test('a plain GET', async (t) => {
  const required = { statusCode: 426, headers: { upgrade: 'spanza, UoTLV/1, websocket', connection: 'close, upgrade' } }

  await t.test('is answered 426 with the protocols, also by app.inject, and without counting as a refusal', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay/:network')
      app.relay('/spanza', { protocols: ['spanza'] })
    })
    const refusals = refusalsOf(app)
    const injected = await app.inject('/relay/home')
    t.match({ statusCode: injected.statusCode, headers: injected.headers, body: injected.json() }, { ...required, body: { code: 'FST_RELAY_UPGRADE_REQUIRED' } })
    t.match((await app.inject('/spanza')).headers, { upgrade: 'spanza' })
    const client = await RawClient.dial(t, app)
    await client.send(requestText('/relay/home'))
    t.match(await client.answer(), required)
    t.equal(await client.closed, undefined)
    t.same(refusals, [])
  })

  await t.test('asks for nothing with half of an upgrade', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'))
    for (const headers of [{ Upgrade: 'spanza' }, { Connection: 'Upgrade' }, { Connection: 'Upgrade', Upgrade: '' }]) {
      const client = await RawClient.dial(t, app)
      await client.send(requestText('/relay', { headers }))
      t.match(await client.answer(), required)
    }
  })

  await t.test('tells the operator that a proxy seems to take Upgrade away, by what it left', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'))
    const asked = 'This is a relay: send Upgrade with one of: spanza, UoTLV/1, websocket'
    const cases: Array<[Record<string, string>, string]> = [
      [{ 'Spanza-Framing': 'wg' }, `${asked}; this request has Spanza-Framing, so the proxy in front of this server seems to take Upgrade away`],
      [{ 'Sec-WebSocket-Version': '13' }, `${asked}; this request has Sec-WebSocket-Version, so the proxy in front of this server seems to take Upgrade away`],
      [{}, asked]
    ]
    for (const [headers, message] of cases) t.equal((await app.inject({ url: '/relay', headers })).json().message, message)
  })

  await t.test('goes to `plain` where there is one, behind the hooks', async (t) => {
    const app = await startApp(t, (app) => {
      app.decorate('greeting', 'hello')
      app.relay('/returns/:network', {
        onRequest: async (_request, reply) => { reply.header('x-hook', 'ran') },
        plain: function (request, reply) {
          reply.header('x-plain', 'ran')
          return { greeting: (this as unknown as { greeting: string }).greeting, params: request.params }
        }
      })
      app.relay('/sends', { plain: (_request, reply) => reply.code(203).send('sent') })
      app.relay('/later', { plain: (_request, reply) => { setImmediate(() => reply.send('sent')); return reply } })
      app.relay('/throws', { plain: async () => { throw Object.assign(new Error('no'), { statusCode: 403 }) } })
    })
    const returned = await app.inject('/returns/home')
    t.match(returned.headers, { 'x-hook': 'ran', 'x-plain': 'ran' })
    t.same(returned.json(), { greeting: 'hello', params: { network: 'home' } })
    t.match(await app.inject('/sends'), { statusCode: 203, body: 'sent' })
    t.match(await app.inject('/later'), { statusCode: 200, body: 'sent' })
    t.match(await app.inject('/throws'), { statusCode: 403 })
    await openBare(t, app, '/returns/home')
  })
})

t.test('other methods on the path are the app\'s', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay')
    app.head('/relay', async () => {})
    app.route({ method: ['POST', 'PUT', 'DELETE', 'OPTIONS'], url: '/relay', handler: async ({ method }) => method })
  })
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS'] as const) t.equal((await app.inject({ method, url: '/relay' })).body, method)
  t.equal((await app.inject({ method: 'HEAD', url: '/relay' })).statusCode, 200)
  await openBare(t, app, '/relay')
})

t.test('without a route of the app, a HEAD finds nothing', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  t.equal((await app.inject({ method: 'HEAD', url: '/relay' })).statusCode, 404)
})

t.test('a second route for the same path is an error, as with any route', async (t) => {
  await startApp(t, (app) => {
    app.relay('/relay')
    t.throws(() => app.get('/relay', async () => ''), { code: 'FST_ERR_DUPLICATED_ROUTE' })
    t.throws(() => app.relay('/relay'), { code: 'FST_ERR_DUPLICATED_ROUTE' })
  })
})

t.test('all the hooks of the app run before the 101, in their order', async (t) => {
  const ran: string[] = []
  const note = (name: string) => async () => { ran.push(name) }
  const app = await startApp(t, (app) => {
    app.addHook('onRequest', note('instance onRequest'))
    app.addHook('preHandler', note('instance preHandler'))
    app.relay('/relay', {
      onRequest: [note('onRequest 1'), (_request, _reply, done) => { ran.push('onRequest 2'); done() }],
      preValidation: note('preValidation'),
      preHandler: [note('preHandler')],
      identify: () => ({ context: ran.push('identify') })
    })
  })
  await openBare(t, app, '/relay')
  t.same(ran, ['instance onRequest', 'onRequest 1', 'onRequest 2', 'preValidation', 'instance preHandler', 'preHandler', 'identify'])
})

t.test('what a hook of the app answers is the answer', async (t) => {
  const hooks = {
    'a reply in an async hook': { onRequest: async (_request: unknown, reply: FastifyReply) => await reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'no token' }) },
    'a reply in a hook with a callback': { preHandler: (_request: unknown, reply: FastifyReply) => { reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'no token' }) } },
    'an error': { preValidation: async (_request: unknown, reply: FastifyReply) => { reply.header('www-authenticate', 'Bearer'); throw Object.assign(new Error('no token'), { statusCode: 401 }) } },
    'an error by a callback': {
      onRequest: (_request: unknown, reply: FastifyReply, done: (error: Error) => void) => {
        reply.header('www-authenticate', 'Bearer')
        done(Object.assign(new Error('no token'), { statusCode: 401 }))
      }
    }
  }
  for (const [what, options] of Object.entries(hooks)) {
    await t.test(what, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', options))
      await testRefusal(t, app, upgradeText('/relay'), { statusCode: 401, headers: { 'www-authenticate': 'Bearer' } })
    })
  }

  await t.test('validation fails as for any route', async (t) => {
    const schema = { querystring: { type: 'object', required: ['token'], properties: { token: { type: 'string' } } } }
    const app = await startApp(t, (app) => app.relay('/relay', { schema }))
    await testRefusal(t, app, upgradeText('/relay'), { statusCode: 400, toldCode: 'FST_ERR_VALIDATION' })
    await openBare(t, app, '/relay?token=x')
  })

  await t.test('the app\'s own error handler answers, and the code is counted all the same', async (t) => {
    const app = await startApp(t, (app) => {
      app.setErrorHandler(async (error, _request, reply) => await reply.code(418).send({ mine: (error as { code?: string }).code }))
      app.relay('/relay', { hosts: ['relay.example.com'] })
    })
    const refusals = refusalsOf(app)
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    const answer = await client.answer()
    t.match(answer, { statusCode: 418, headers: { connection: 'close' } })
    t.same(JSON.parse(answer.body), { mine: 'FST_RELAY_HOST_NOT_ALLOWED' })
    await client.closed
    t.match(refusals, [{ statusCode: 418, code: 'FST_RELAY_HOST_NOT_ALLOWED' }])
  })
})

t.test('admission is in this order', async (t) => {
  // Each step is a request that is refused there, and would be refused by every step behind it as well.
  const reject = (statusCode: number) => async () => { throw Object.assign(new Error('refused'), { statusCode }) }
  const wrong = { Upgrade: 'h2c', 'Spanza-Framing': 'none', 'X-Forwarded-For': 'garbage' }
  const setUp = ({ instance, hook, identify }: { instance?: boolean, hook?: boolean, identify?: boolean }) => (app: FastifyInstance): void => {
    if (instance === true) app.addHook('onRequest', reject(451))
    app.relay('/relay', {
      hosts: ['relay.example.com'],
      ...(hook === true ? { onRequest: reject(402) } : {}),
      identify: () => {
        if (identify === true) throw Object.assign(new Error('refused'), { statusCode: 403 })
        return { id: '' }
      }
    })
  }
  const host = 'relay.example.com'
  const steps: Array<[string, Parameters<typeof setUp>[0], RequestParts, Expected, SpanzaRelayOptions?]> = [
    ['Host', { instance: true, hook: true }, { host: false, version: '1.0', headers: { ...wrong, 'Content-Length': '1' } }, { statusCode: 400, code: 'FST_RELAY_HOST_HEADER' }],
    ['HTTP version', { instance: true, hook: true }, { version: '1.0', headers: { ...wrong, 'Content-Length': '1' } }, { statusCode: 400, code: 'FST_RELAY_HTTP_VERSION' }],
    ['body', { instance: true, hook: true }, { headers: { ...wrong, 'Content-Length': '1' } }, { statusCode: 400, code: 'FST_RELAY_BODY' }],
    ['instance-wide hooks', { instance: true, hook: true }, { headers: wrong }, { statusCode: 451 }],
    ['protocol', { hook: true }, { headers: wrong }, { statusCode: 400, code: 'FST_RELAY_PROTOCOL' }],
    ['hosts', { hook: true }, { headers: { ...wrong, Upgrade: 'spanza' } }, { statusCode: 421, code: 'FST_RELAY_HOST_NOT_ALLOWED' }],
    ['client address', { hook: true }, { host, headers: { ...wrong, Upgrade: 'spanza' } }, { statusCode: 400, code: 'FST_RELAY_CLIENT_ADDRESS' }],
    ['hooks of the route', { hook: true, identify: true }, { host, headers: { 'Spanza-Framing': 'none' } }, { statusCode: 402 }],
    ['framing', { identify: true }, { host, headers: { 'Spanza-Framing': 'none' } }, { statusCode: 400, code: 'FST_RELAY_FRAMING' }],
    ['identify', { identify: true }, { host }, { statusCode: 403 }],
    ['what identify has returned', {}, { host }, { statusCode: 500, code: 'FST_RELAY_IDENTITY' }]
  ]
  for (const [what, parts, request, expected] of steps) {
    await t.test(what, async (t) => {
      const app = await startApp(t, setUp(parts), { server: { trustProxy: '127.0.0.1' } })
      await testRefusal(t, app, upgradeText('/relay', request), expected)
    })
  }

  await t.test('limits by address, before the hooks that were added after the plugin', async (t) => {
    const app = await startApp(t, setUp({ instance: true }), { relay: { clientHandshakesPerSecond: 1 } })
    const requests = Array.from({ length: 30 }, async () => await askForUpgrade(t, app, '/relay', { headers: wrong }))
    const statuses = (await Promise.all(requests)).map(({ statusCode }) => statusCode)
    t.ok(statuses.filter((status) => status === 451).length >= 5)
    t.same(new Set(statuses), new Set([451, 429]))
  })

  await t.test('room, behind identify', async (t) => {
    let identified = 0
    const app = await startApp(t, (app) => app.relay('/relay/:channel', { identify: () => ({ context: ++identified }) }), { relay: { maxPeers: 3 } })
    await openBare(t, app, '/relay/a')
    await openBare(t, app, '/relay/a')
    await testRefusal(t, app, upgradeText('/relay/a'), { statusCode: 409, code: 'FST_RELAY_CHANNEL_PAIRED' })
    await openBare(t, app, '/relay/b')
    await testRefusal(t, app, upgradeText('/relay/a'), { statusCode: 503, code: 'FST_RELAY_HUB_FULL', headers: { 'retry-after': /^\d+$/ } })
    t.equal(identified, 5)
  })
})

t.test('room in a channel', async (t) => {
  const wg = { headers: { 'Spanza-Framing': 'wg' } }
  await t.test('of packets', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { identify: ({ headers }) => headers['x-key'] === undefined ? {} : { publicKey: Buffer.alloc(32, String(headers['x-key'])) } }),
      { relay: { maxChannelPeers: 2, maxKeylessPeers: 1 } })
    await openBare(t, app, '/relay', wg)
    await testRefusal(t, app, upgradeText('/relay', wg), { statusCode: 503, code: 'FST_RELAY_KEYLESS_FULL', headers: { 'retry-after': /^\d+$/ } })
    await openBare(t, app, '/relay', { headers: { ...wg.headers, 'X-Key': 'a' } })
    await testRefusal(t, app, upgradeText('/relay', { headers: { ...wg.headers, 'X-Key': 'b' } }), { statusCode: 503, code: 'FST_RELAY_CHANNEL_FULL', headers: { 'retry-after': /^\d+$/ } })
  })

  for (const [what, headers] of [['packets', wg.headers], ['bytes', {}]] as const) {
    await t.test(`of ${what}, for an identity that comes again and again`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { identify: () => ({ id: 'same' }) }))
      for (let i = 0; i < 6; i++) await openBare(t, app, '/relay', { headers })
      await testRefusal(t, app, upgradeText('/relay', { headers }), { statusCode: 429, code: 'FST_RELAY_REPLACED_TOO_OFTEN', headers: { 'retry-after': /^\d+$/ } })
    })
  }
})

t.test('channels', async (t) => {
  await t.test('are named by the decoded parameters', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/none')
      app.relay('/one/:a')
      app.relay('/two/:a/:b')
      app.relay('/rest/*')
      app.relay('/some/:a/:b?')
      app.relay('/number/:a', { schema: { params: { type: 'object', properties: { a: { type: 'integer' } } } } })
    })
    const paths: Array<[string, string]> = [
      ['/none', ''], ['/none?x=1', ''], ['/one/home', 'home'], ['/one/%68ome', 'home'], ['/one/a%2Fb', 'a%2Fb'], ['/one/a%252Fb', 'a%252Fb'], ['/one/%C3%A9', 'é'],
      ['/two/a/b', 'a/b'], ['/two/a%2Fb/c', 'a%2Fb/c'], ['/two/a/b%2Fc', 'a/b%2Fc'], ['/rest/a/b', 'a%2Fb'], ['/some/a/b', 'a/b'], ['/some/a%2Fb', 'a%2Fb'], ['/number/007', '7']
    ]
    for (const [path, name] of paths) {
      await t.test(path, async (t) => {
        const attached = new Promise<string>((resolve) => app.relayHub.once('attach', ({ channel }) => resolve(channel.name)))
        const client = await openBare(t, app, path)
        t.equal(await attached, name)
        const detached = new Promise((resolve) => app.relayHub.once('detach', resolve))
        client.socket.destroy()
        await detached
      })
    }
  })

  await t.test('of two routes never meet', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/a/:network')
      app.relay('/b/:network')
      app.relay('/c', { identify: () => ({ channel: 'home' }) })
    })
    for (const path of ['/a/home', '/b/home', '/c']) await openBare(t, app, path)
    t.match(app.relayHub.channels(), [
      { scope: '/a/:network', name: 'home', peers: 1 }, { scope: '/b/:network', name: 'home', peers: 1 }, { scope: '/c', name: 'home', peers: 1 }
    ])
  })

  await t.test('of routes with the same scope are the same', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/a/:network', { scope: 'joined' })
      app.relay('/b/:other', { scope: 'joined' })
    })
    await testJoined(t, await openBare(t, app, '/a/home'), await openBare(t, app, '/b/home'))
    t.match(app.relayHub.channels(), [{ scope: 'joined', name: 'home', kind: 'stream', peers: 2 }])
  })

  await t.test('of bytes and of packets never meet', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'))
    await openBare(t, app, '/relay')
    await openBare(t, app, '/relay', { headers: { 'Spanza-Framing': 'wg' } })
    t.match(app.relayHub.channels(), [{ kind: 'stream', peers: 1 }, { kind: 'packet', peers: 1 }])
  })
})

t.test('the options of a call are not changed, so that they can be used again', async (t) => {
  const options = Object.freeze({ hosts: Object.freeze(['localhost']), config: Object.freeze({ mine: true }), onRequest: Object.freeze([async () => {}]) })
  const app = await startApp(t, (app) => {
    app.relay('/a', options as object)
    app.relay('/b', options as object)
  })
  await openBare(t, app, '/a')
  await openBare(t, app, '/b')
})

t.test('an offer to upgrade to what no relay speaks (RFC 9110, section 7.8)', async (t) => {
  const start = async (t: Test, options: RelayRouteOptions): Promise<FastifyInstance> => await startApp(t, (app) => app.relay('/relay', options))
  const plain: RelayRouteOptions['plain'] = async () => 'plain'
  const ask = async (t: Test, app: FastifyInstance, upgrade: string): Promise<Answer> => {
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay', { headers: { Upgrade: upgrade } }))
    return await client.answer()
  }
  for (const upgrade of ['h2c', 'TLS/1.0', 'h2c, TLS/1.2', 'example/1']) {
    await t.test(`${upgrade} is ignored where plain answers`, async (t) => {
      const app = await start(t, { plain })
      const refusals = refusalsOf(app)
      t.match(await ask(t, app, upgrade), { statusCode: 200, body: 'plain' })
      await app.close()
      t.same(refusals, [], 'which is no refusal')
      t.same(app.relayHub.stats().refused, {})
    })
    await t.test(`${upgrade} is refused where nothing else answers`, async (t) => {
      t.match(await ask(t, await start(t, {}), upgrade), { statusCode: 400, headers: { connection: 'close, upgrade' } })
    })
  }
  await t.test('a list with a protocol of the route opens a tunnel', async (t) => {
    t.match(await ask(t, await start(t, { plain }), 'h2c, spanza'), { statusCode: 101 })
  })
  await t.test('a protocol that relays speak, and this route does not, is refused', async (t) => {
    t.match(await ask(t, await start(t, { plain, protocols: ['spanza'] }), 'UoTLV/1'), { statusCode: 400 })
  })
  await t.test('what plain answers may take longer than a handshake', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', {
      plain: async () => { await new Promise((resolve) => setTimeout(resolve, 100)); return 'late' }
    }), { relay: { handshakeTimeout: 20 } })
    t.match(await ask(t, app, 'h2c'), { statusCode: 200, body: 'late' })
  })
})
