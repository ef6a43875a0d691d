import { once } from 'node:events'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import t, { type Test } from 'tap'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, testRefusal } from '../helpers/relay-app.ts'
import type { HubOptions, RelayRouteOptions } from '../../lib/index.ts'

// Which hooks of Fastify run: those before the answer as on any route, those behind it only where there is one.

const before = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'identify']
const answered = ['onSend', 'onResponse']

/** Adds every hook there is to the app, each of which notes its name; the names, in the order in which they ran. */
function noteHooks (app: FastifyInstance): string[] {
  const ran: string[] = []
  const names = ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onError', 'onSend', 'onResponse', 'onTimeout', 'onRequestAbort']
  for (const name of names) app.addHook(name as 'onRequest', async (_request) => { ran.push(name) })
  return ran
}

interface Case {
  options?: RelayRouteOptions
  relay?: HubOptions
  headers?: Record<string, string>
  statusCode: number
  toldCode?: string
  ran: string[]
}

const fail = async (): Promise<never> => { throw Object.assign(new Error('no'), { statusCode: 403 }) }
const reply = async (_request: FastifyRequest, reply: FastifyReply): Promise<unknown> => await reply.code(403).send({ no: 'entry' })

const cases: Record<string, Case> = {
  'an accepted upgrade runs all that come before an answer': { statusCode: 101, ran: [...before, 'onSend'] },
  'a refusal of the relay before the route\'s hooks': {
    headers: { Upgrade: 'h2c' }, statusCode: 400, ran: ['onRequest', 'onError', ...answered]
  },
  'a refusal of the relay behind the route\'s hooks': {
    headers: { 'Spanza-Framing': 'none' }, statusCode: 400, ran: [...before.slice(0, -1), 'onError', ...answered]
  },
  'an error of identify': { options: { identify: fail }, statusCode: 403, ran: [...before.slice(0, -1), 'onError', ...answered] },
  'an error of onRequest': { options: { onRequest: fail }, statusCode: 403, ran: ['onRequest', 'onError', ...answered] },
  'an error of preParsing': { options: { preParsing: fail }, statusCode: 403, ran: [...before.slice(0, 2), 'onError', ...answered] },
  'an error of preHandler': { options: { preHandler: fail }, statusCode: 403, ran: [...before.slice(0, 4), 'onError', ...answered] },
  'a reply of onRequest': { options: { onRequest: reply }, statusCode: 403, ran: ['onRequest', 'preSerialization', ...answered] },
  'a reply of preValidation': { options: { preValidation: reply }, statusCode: 403, ran: [...before.slice(0, 3), 'preSerialization', ...answered] },
  'a request that its schema does not allow': {
    options: { schema: { headers: { type: 'object', required: ['x-token'] } } }, statusCode: 400, toldCode: 'FST_ERR_VALIDATION', ran: [...before.slice(0, 3), 'onError', ...answered]
  },
  // The answer is written past Fastify: no onSend, no onError.
  'the deadline': { options: { preHandler: () => {} }, relay: { handshakeTimeout: 20 }, statusCode: 503, ran: [...before.slice(0, 4), 'onResponse'] }
}

for (const [what, { options = {}, relay = {}, headers = {}, statusCode, toldCode, ran: expected }] of Object.entries(cases)) {
  t.test(`hooks run for ${what}`, async (t) => {
    let ran: string[] = []
    const app = await startApp(t, (app) => {
      ran = noteHooks(app)
      app.relay('/relay', { identify: () => ({ context: ran.push('identify') }), ...options })
    }, { relay })
    if (statusCode === 101) await openBare(t, app, '/relay', { headers })
    else await testRefusal(t, app, upgradeText('/relay', { headers }), { ...answerTo(what, statusCode), ...(toldCode === undefined ? {} : { toldCode }) })
    t.same(ran, expected)
    await app.close()
    const atEnd = statusCode === 101 ? [...expected, 'onResponse'] : expected
    t.same(ran, atEnd, 'and onResponse when a tunnel has ended')
  })
}

/** What `testRefusal` is to expect: refusals of ours are counted by their code. */
function answerTo (what: string, statusCode: number): Parameters<typeof testRefusal>[3] {
  if (what === 'the deadline') return { statusCode, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' }
  if (what.includes('before the route')) return { statusCode, code: 'FST_RELAY_PROTOCOL' }
  if (what.includes('behind the route')) return { statusCode, code: 'FST_RELAY_FRAMING' }
  return { statusCode }
}

t.test('onRequestAbort and onResponse run when the client leaves during the hooks, and nothing else does', async (t) => {
  let ran: string[] = []
  let open = (): void => {}
  const app = await startApp(t, (app) => {
    ran = noteHooks(app)
    app.relay('/relay', { preValidation: (_request, _reply, done) => { open = done } })
  })
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay'))
  while (!ran.includes('preValidation')) await new Promise((resolve) => setImmediate(resolve))
  const refused = once(app.relayHub, 'refuse')
  client.socket.destroy()
  await refused
  open()
  await app.inject('/')
  t.same(ran.slice(0, 5).sort(), ['onRequest', 'onRequestAbort', 'onResponse', 'preParsing', 'preValidation'])
  t.notOk(ran.includes('identify'))
})

t.test('onSend can change', async (t) => {
  const change: RouteShorthandOptions['onSend'] = async (_request, reply, payload) => {
    reply.header('x-sent', 'yes')
    return String(payload).replace('token', 'xxxxx')
  }
  await t.test('a refusal of a hook', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { onSend: change, onRequest: async (_request, reply) => await reply.code(401).send('no token') }))
    const { body } = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 401, headers: { 'x-sent': 'yes' } })
    t.equal(body, 'no xxxxx')
  })
  await t.test('a refusal of the relay', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { onSend: change }))
    await testRefusal(t, app, upgradeText('/relay', { headers: { Upgrade: 'token' } }),
      { statusCode: 400, code: 'FST_RELAY_PROTOCOL', headers: { 'x-sent': 'yes' }, message: /"xxxxx"/ })
  })
})

/** An app on which a connection that is silent for 50 ms has timed out. */
async function startImpatient (t: Test, options: RelayRouteOptions): Promise<{ app: FastifyInstance, ran: string[] }> {
  let ran: string[] = []
  const app = await startApp(t, (app) => {
    ran = noteHooks(app)
    app.relay('/relay', options)
  }, { server: { connectionTimeout: 50 }, relay: { handshakeTimeout: 300, pairTimeout: 300 } })
  return { app, ran }
}

t.test('a connectionTimeout of the app', async (t) => {
  await t.test('runs onTimeout during the hooks, and leaves the answer to the deadline', async (t) => {
    const { app, ran } = await startImpatient(t, { preHandler: () => {} })
    await testRefusal(t, app, upgradeText('/relay'), { statusCode: 503, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' })
    t.same(ran, ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'onTimeout', 'onResponse'])
  })

  await t.test('is none of a tunnel', async (t) => {
    const { app, ran } = await startImpatient(t, {})
    const detached = once(app.relayHub, 'detach')
    await openBare(t, app, '/relay')
    t.match((await detached)[1], { reason: 'pair-timeout' })
    t.notOk(ran.includes('onTimeout'))
  })
})
