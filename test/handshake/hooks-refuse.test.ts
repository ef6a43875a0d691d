import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { RawClient, requestText, upgradeText, type Answer } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, startApp, testRefusal, type Expected } from '../helpers/relay-app.ts'
import type { RelayRouteOptions } from '../../lib/index.ts'

// What a hook of the app throws or replies is the answer to the upgrade: the one that the same hook would give on any
// other route, but that the connection closes behind it.

/** The answer without what may differ between two of them, or between one that closes and one that does not. */
function essence ({ statusCode, headers, body }: Answer): unknown {
  const { connection, date, 'keep-alive': keepAlive, ...rest } = headers
  return { statusCode, headers: rest, body }
}

/** Tests that `hooks` refuse an upgrade, in the words in which they refuse a GET of an ordinary route. */
async function testSameRefusal (t: Test, hooks: RelayRouteOptions, expected: Expected): Promise<Answer> {
  const app = await startApp(t, (app) => {
    app.relay('/relay', hooks)
    app.get('/rest', hooks, async () => 'rest')
  })
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/rest', { headers: { Connection: 'close' } }))
  const usual = essence(await client.answer())
  const answer = await testRefusal(t, app, upgradeText('/relay'), expected)
  t.same(essence(answer), usual, 'the same as on an ordinary route')
  return answer
}

const thrown: Record<string, [unknown, number]> = {
  'an error': [new Error('no'), 500],
  'an error with statusCode': [Object.assign(new Error('no'), { statusCode: 403 }), 403],
  'an error with status': [Object.assign(new Error('no'), { status: 404 }), 404],
  'an error with a status that is none for errors': [Object.assign(new Error('no'), { statusCode: 200 }), 500],
  'an error with the status of an upgrade': [Object.assign(new Error('no'), { statusCode: 101 }), 500],
  'an error with headers': [Object.assign(new Error('no'), { statusCode: 401, headers: { 'www-authenticate': 'Bearer' } }), 401],
  'an error with a code': [Object.assign(new Error('no'), { statusCode: 402, code: 'MINE' }), 402],
  'an error with a code of ours': [Object.assign(new Error('no'), { statusCode: 402, code: 'FST_RELAY_HUB_FULL' }), 402],
  'a frozen error': [Object.freeze(Object.assign(new Error('no'), { statusCode: 403 })), 403],
  'an error with CR and LF in its message': [Object.assign(new Error('no\r\nInjected: yes'), { statusCode: 403 }), 403],
  'an error of another class': [new AggregateError([new Error('one')], 'all'), 500],
  'an error without prototype': [Object.assign(Object.create(null), { statusCode: 403 }), 403],
  'a plain object': [{ statusCode: 403, message: 'no' }, 403],
  'a string': ['no', 500],
  'a number': [7, 500],
  'an array': [[1], 500]
}

t.test('a hook that fails with', async (t) => {
  for (const [what, [error, statusCode]] of Object.entries(thrown)) {
    const styles: Record<string, RelayRouteOptions['onRequest'] & object> = {
      'thrown by an async hook': async () => { throw error },
      'thrown by a hook with a callback': () => { throw error },
      'given to the callback': (_request, _reply, done) => done(error as Error),
      'given to the callback later': (_request, _reply, done) => { setImmediate(done, error as Error) }
    }
    for (const [style, hook] of Object.entries(styles)) {
      await t.test(`${what}, ${style}`, async (t) => {
        const { code } = error as { code?: string }
        await testSameRefusal(t, { onRequest: hook }, { statusCode, ...(code === undefined ? {} : { toldCode: code }) })
      })
    }
  }
})

t.test('an error thrown in', async (t) => {
  const fail = async (): Promise<never> => { throw Object.assign(new Error('no'), { statusCode: 403 }) }
  for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend'] as const) {
    const isOnTheWayBack = name === 'preSerialization' || name === 'onSend'
    await t.test(`${name}${isOnTheWayBack ? ', on the way of another refusal,' : ''} is the answer`, async (t) => {
      const refusal = isOnTheWayBack ? { preHandler: async (_request: unknown, reply: FastifyReply) => await reply.code(401).send({}) } : {}
      await testSameRefusal(t, { ...refusal, [name]: fail }, { statusCode: 403 })
    })
  }

  const identifies: Record<string, NonNullable<RelayRouteOptions['identify']>> = {
    identify: () => { throw Object.assign(new Error('no'), { statusCode: 403 }) },
    'identify, later': async () => await fail(),
    'identify, and frozen': () => { throw Object.freeze(Object.assign(new Error('no'), { statusCode: 403 })) },
    'identify, that is no error': () => { throw { statusCode: 403 } } // eslint-disable-line no-throw-literal
  }
  for (const [what, identify] of Object.entries(identifies)) {
    await t.test(`${what} is the answer`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { identify }))
      await testRefusal(t, app, upgradeText('/relay'), { statusCode: 403 })
    })
  }

  await t.test('identify without any value is a 500', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { identify: async () => { throw undefined } })) // eslint-disable-line no-throw-literal
    await testRefusal(t, app, upgradeText('/relay'), { statusCode: 500 })
  })
})

t.test('a hook that replies', async (t) => {
  const large = 'x'.repeat(1 << 20)
  const replies: Record<string, [number, (reply: FastifyReply) => unknown, Expected['headers']?]> = {
    'an error by code': [401, (reply) => reply.code(401).header('WWW-Authenticate', 'Bearer').send(), { 'www-authenticate': 'Bearer', 'content-length': '0' }],
    'an object': [403, (reply) => reply.code(403).send({ no: 'entry' }), { 'content-type': /^application\/json/ }],
    'text in many languages': [403, (reply) => reply.code(403).type('text/plain; charset=utf-8').send('Přístup odepřen'), {}],
    'an error object': [403, (reply) => reply.code(403).send(new Error('no')), {}],
    'a rate limit of its own': [429, (reply) => reply.code(429).header('Retry-After', 77).send({}), { 'retry-after': '77' }],
    'that it is away, with a time of its own': [503, (reply) => reply.code(503).header('Retry-After', 'Fri, 01 Jan 2100 00:00:00 GMT').send({}), { 'retry-after': /2100/ }],
    'a redirect': [302, (reply) => reply.redirect('https://login.example.com/?back=%2Frelay'), { location: 'https://login.example.com/?back=%2Frelay' }],
    'a redirect that keeps the method': [308, (reply) => reply.redirect('/other', 308), { location: '/other' }],
    'no content': [204, (reply) => reply.code(204).send(), {}],
    'that nothing has changed': [304, (reply) => reply.code(304).send(), {}],
    'as if all was well': [200, (reply) => reply.send({ fine: true }), {}],
    'a large string': [403, (reply) => reply.code(403).send(large), { 'content-length': String(large.length) }],
    'a large buffer': [403, (reply) => reply.code(403).send(Buffer.from(large)), { 'content-length': String(large.length) }],
    'a web Response': [418, (reply) => reply.send(new Response('tea', { status: 418, headers: { 'x-pot': 'yes' } })), { 'x-pot': 'yes' }],
    'a stream': [403, (reply) => reply.code(403).send(Readable.from(['no ', 'entry'])), { 'transfer-encoding': 'chunked' }],
    'a large stream': [403, (reply) => reply.code(403).send(Readable.from([large, large])), { 'transfer-encoding': 'chunked' }],
    'a stream of known length': [403, (reply) => reply.code(403).header('Content-Length', 8).send(Readable.from(['no ', 'entry'])), { 'content-length': '8' }],
    'with trailers': [403, (reply) => reply.code(403).trailer('x-sum', async () => '17').send('no'), { trailer: 'x-sum' }],
    'through its serializer': [403, (reply) => reply.code(403).serializer(() => 'serialized').send({}), {}]
  }
  for (const [what, [statusCode, answer, headers]] of Object.entries(replies)) {
    const styles: Record<string, RelayRouteOptions['onRequest'] & object> = {
      async: async (_request, reply) => { answer(reply); return reply },
      'with a callback': (_request, reply) => { answer(reply) },
      later: (_request, reply) => { setImmediate(() => answer(reply)) }
    }
    for (const [style, onRequest] of Object.entries(styles)) {
      await t.test(`${what} (${style})`, async (t) => {
        await testSameRefusal(t, { onRequest }, { statusCode, ...(headers === undefined ? {} : { headers }) })
      })
    }
  }

  for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const) {
    await t.test(`in ${name}`, async (t) => {
      const hook = (_request: FastifyRequest, reply: FastifyReply): void => { reply.code(401).send({ hook: name }) }
      await testSameRefusal(t, { [name]: hook }, { statusCode: 401 })
    })
  }
})

t.test('validation refuses', async (t) => {
  const integer = { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } }
  const cases: Array<[string, object, string, string]> = [
    ['params', { params: integer }, '/relay/a', '/relay/1'],
    ['querystring', { querystring: integer }, '/relay/1?n=a', '/relay/1?n=1'],
    ['headers', { headers: integer }, '/relay/1', '']
  ]
  for (const [part, schema, wrong, right] of cases) {
    await t.test(part, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay/:n', { schema }))
      const answer = await testRefusal(t, app, upgradeText(wrong), { statusCode: 400, toldCode: 'FST_ERR_VALIDATION' })
      t.match(JSON.parse(answer.body), { code: 'FST_ERR_VALIDATION' })
      if (right !== '') await openBare(t, app, right)
      else await openBare(t, app, wrong, { headers: { N: '1' } })
    })
  }

  await t.test('not, where attachValidation leaves it to a hook', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay/:n', {
      schema: { params: integer },
      attachValidation: true,
      preHandler: async (request) => { if (request.validationError !== undefined) throw Object.assign(new Error('my way'), { statusCode: 422 }) }
    }))
    await testRefusal(t, app, upgradeText('/relay/a'), { statusCode: 422 })
  })
})

t.test('the handlers of the app', async (t) => {
  const refuse = async (): Promise<never> => { throw Object.assign(new Error('no'), { statusCode: 403 }) }

  for (const [what, handler] of Object.entries<(error: unknown, request: unknown, reply: FastifyReply) => unknown>({
    'that returns': async (_error, _request, reply) => { reply.code(418); return { mine: true } },
    'that sends': (_error, _request, reply) => reply.code(418).send({ mine: true }),
    'that sends later': (_error, _request, reply) => { setImmediate(() => reply.code(418).send({ mine: true })) },
    'that fails': async () => { throw Object.assign(new Error('worse'), { statusCode: 418 }) }
  })) {
    await t.test(`an error handler ${what} answers for a hook`, async (t) => {
      const app = await startApp(t, (app) => {
        app.setErrorHandler(handler)
        app.relay('/relay', { onRequest: refuse })
      })
      await testRefusal(t, app, upgradeText('/relay'), { statusCode: 418 })
    })
  }

  await t.test('an error handler of the route goes before that of the app', async (t) => {
    const app = await startApp(t, (app) => {
      app.setErrorHandler(async (_error, _request, reply) => await reply.code(418).send())
      app.relay('/relay', { onRequest: refuse, errorHandler: (_error, _request, reply) => { reply.code(420).send() } })
    })
    await testRefusal(t, app, upgradeText('/relay'), { statusCode: 420 })
  })

  await t.test('an error handler may send the answer of ours as something else, and it is counted by its code', async (t) => {
    const app = await startApp(t, (app) => {
      app.setErrorHandler(async (_error, _request, reply) => { await reply.code(302).header('location', '/').send() })
      app.relay('/relay')
    })
    const refusals = refusalsOf(app)
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay', { headers: { Upgrade: 'h2c' } }))
    t.match(await client.answer(), { statusCode: 302, headers: { location: '/' } })
    t.equal(await client.closed, undefined)
    t.match(refusals, [{ statusCode: 302, code: 'FST_RELAY_PROTOCOL' }])
  })

  for (const call of ['callNotFound', 'throw'] as const) {
    await t.test(`a 404 handler answers where a hook says that there is nothing (${call})`, async (t) => {
      const app = await startApp(t, (app) => {
        app.setNotFoundHandler((_request, reply) => { reply.code(404).send({ mine: true }) })
        app.setErrorHandler((_error, _request, reply) => { reply.callNotFound() })
        app.relay('/relay', {
          onRequest: (_request, reply) => {
            if (call === 'throw') throw new Error('no')
            reply.callNotFound()
          }
        })
      })
      const answer = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 404 })
      t.same(JSON.parse(answer.body), { mine: true })
    })
  }
})
