import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify from 'fastify'
import t from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, serverCertificate, startApp, startListening, testJoined, testRefusal } from '../helpers/relay-app.ts'

t.test('closing returns', async (t) => {
  await t.test('before listening, and twice', async () => {
    const app = Fastify()
    await app.register(spanzaRelay, { path: '/relay' })
    await app.ready()
    await app.close()
    await app.close()
  })

  await t.test('without having been used', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'))
    await app.close()
  })

  for (const framing of ['raw', 'wg']) {
    await t.test(`with idle tunnels, which are ended (${framing})`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay/:channel'))
      const clients: RawClient[] = []
      for (const name of ['a', 'a', 'b']) clients.push(await openBare(t, app, `/relay/${name}`, { headers: { 'Spanza-Framing': framing } }))
      const reasons: string[] = []
      app.relayHub.on('detach', (_peer, { reason }) => reasons.push(reason))
      await Promise.all([app.close(), app.close(), ...clients.map(async (client) => await client.closed)])
      t.same(new Set(reasons), new Set(['shutdown']))
      t.match(app.relayHub.stats(), { peers: 0, attached: 3 })
    })
  }

  await t.test('with tunnels that do not end by themselves', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay/:channel'), { relay: { closeGrace: 20 } })
    await openBare(t, app, '/relay/silent', {}, { allowHalfOpen: true })
    const deaf = await openBare(t, app, '/relay/deaf', {}, { allowHalfOpen: true })
    deaf.socket.pause()
    const sending = await openBare(t, app, '/relay/sending', {}, { allowHalfOpen: true })
    sending.socket.on('drain', () => sending.socket.write(Buffer.alloc(100_000)))
    sending.socket.write(Buffer.alloc(100_000))
    await app.close()
    t.match(app.relayHub.stats(), { peers: 0, detached: { shutdown: 3 } })
  })

  await t.test('with a handshake in a hook, which is answered', async (t) => {
    let reach = (): void => {}
    const reached = new Promise<void>((resolve) => { reach = resolve })
    const app = await startApp(t, (app) => app.relay('/relay', { onRequest: () => reach() }))
    const refusals = refusalsOf(app)
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    await reached
    await app.close()
    const answer = await client.answer()
    t.match(answer, { statusCode: 503, headers: { connection: 'close', 'retry-after': /^\d+$/ } })
    t.match(JSON.parse(answer.body), { code: 'FST_RELAY_CLOSING' })
    t.equal(await client.closed, undefined)
    t.match(refusals, [{ statusCode: 503, code: 'FST_RELAY_CLOSING' }])
  })

  await t.test('while new handshakes come, which are refused before anything else', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay')
      app.get('/rest', async () => 'rest')
    }, { relay: { closeGrace: 1000 } })
    const holding = await openBare(t, app, '/relay', {}, { allowHalfOpen: true })
    const late = await RawClient.dial(t, app)
    await late.send(requestText('/rest'))
    t.equal((await late.answer()).body, 'rest')
    const detached = once(app.relayHub, 'detach')
    const closed = app.close()
    await detached
    await testRefusal(t, app, upgradeText('/relay'), { statusCode: 503, code: 'FST_RELAY_CLOSING', headers: { 'retry-after': /^\d+$/ } })
    await late.send(upgradeText('/relay', { host: false }))
    t.match(JSON.parse((await late.answer()).body), { code: 'FST_RELAY_CLOSING' })
    holding.socket.end()
    await closed
  })

  await t.test('with clients that leave their side of a refused handshake open', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay'))
    const client = await RawClient.dial(t, app, { allowHalfOpen: true })
    await client.send(upgradeText('/relay', { headers: { Upgrade: 'h2c' } }))
    t.equal((await client.answer()).statusCode, 400)
    await app.close()
  })
})

t.test('stats count refusals by code, and by status where a hook refused', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay', { hosts: ['localhost'] })
    app.relay('/private', { onRequest: async (_request, reply) => await reply.code(401).send() })
  })
  const refusals = refusalsOf(app)
  await testRefusal(t, app, upgradeText('/relay', { host: 'other' }), { statusCode: 421, code: 'FST_RELAY_HOST_NOT_ALLOWED' })
  await testRefusal(t, app, upgradeText('/private?token=x'), { statusCode: 401 })
  await testRefusal(t, app, upgradeText('/private'), { statusCode: 401 })
  t.same(app.relayHub.stats().refused, { FST_RELAY_HOST_NOT_ALLOWED: 1, 401: 2 })
  t.same(refusals, [
    { statusCode: 421, code: 'FST_RELAY_HOST_NOT_ALLOWED', message: 'No relay at the host "other"', address: '127.0.0.1', path: '/relay' },
    { statusCode: 401, code: undefined, message: undefined, address: '127.0.0.1', path: '/private' },
    { statusCode: 401, code: undefined, message: undefined, address: '127.0.0.1', path: '/private' }
  ])
})

t.test('refusals and tunnels are logged, without the query', async (t) => {
  const lines: Array<{ msg: string }> = []
  const logger = { level: 'info', stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } }
  const app = await startApp(t, (app) => app.relay('/relay'), { server: { logger, disableRequestLogging: true } })
  await testRefusal(t, app, upgradeText('/relay?token=secret', { headers: { Upgrade: 'h2c' } }), { statusCode: 400, code: 'FST_RELAY_PROTOCOL' })
  await openBare(t, app, '/relay')
  await app.close()
  t.match(lines.filter(({ msg }) => msg.startsWith('relay ')), [
    { msg: 'relay handshake refused', refusal: { statusCode: 400, code: 'FST_RELAY_PROTOCOL', message: /^This relay does not speak "h2c"/, path: '/relay' } },
    { msg: 'relay peer attached', scope: '/relay', address: '127.0.0.1' },
    { msg: 'relay peer detached', reason: 'shutdown' }
  ])
})

t.test('an upgrade to what is no relay route is none of its business', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  const refusals = refusalsOf(app)
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/nowhere'))
  t.equal((await client.answer()).statusCode, 404)
  t.same(refusals, [])
})

for (const [what, server] of [
  ['https', { https: serverCertificate() }],
  ['HTTP/2 that allows HTTP/1.1', { http2: true, https: { ...serverCertificate(), allowHTTP1: true } }]
] as const) {
  t.test(`serves ${what}`, async (t) => {
    const app = Fastify(server as object)
    await app.register(spanzaRelay, { path: '/relay/:channel' })
    app.get('/rest', async () => 'rest')
    app.post('/rest', async (request) => request.body)
    await startListening(t, app as never)
    const tls = { tls: true }
    const a = await openBare(t, app as never, '/relay/home', {}, tls)
    await testJoined(t, a, await openBare(t, app as never, '/relay/home', {}, tls))
    await testRefusal(t, app as never, upgradeText('/relay/x', { headers: { Upgrade: 'h2c' } }), { statusCode: 400, code: 'FST_RELAY_PROTOCOL' }, tls)
    const client = await RawClient.dial(t, app as never, tls)
    await client.send(requestText('/rest', { method: 'POST', headers: { Connection: 'Upgrade', Upgrade: 'h2c', 'Content-Type': 'application/json', 'Content-Length': '7' }, body: '{"a":1}' }))
    t.same(JSON.parse((await client.answer()).body), { a: 1 })
    await app.close()
    await a.closed
  })
}

t.test('on a unix socket', async (t) => {
  // Such a path can be 107 bytes long, no more.
  const directory = mkdtempSync(join(tmpdir(), 'relay-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'socket')
  const app = await startApp(t, (app) => app.relay('/relay'), { listen: { path } })
  const dial = { path }

  await t.test('a tunnel that breaks takes its partner along, and nobody else', async (t) => {
    const [a, b] = [await openBare(t, app, '/relay', {}, dial), await openBare(t, app, '/relay', {}, dial)]
    a.socket.pause()
    await b.send('never read')
    const lost = once(app.relayHub, 'detach')
    a.socket.destroy()
    await b.send('more')
    await lost
    await b.closed
  })

  await t.test('closing returns with two tunnels joined', async (t) => {
    const [a, b] = [await openBare(t, app, '/relay', {}, dial), await openBare(t, app, '/relay', {}, dial)]
    await testJoined(t, a, b)
    await app.close()
  })
})
