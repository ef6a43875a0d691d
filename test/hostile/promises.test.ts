import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay, { type HubOptions } from '../../lib/index.ts'
import { faultText, noticeText } from '../../lib/hub/packet/handshake-words.ts'
import { Identity } from '../../lib/hub/packet/identity.ts'
import { connectHeaders, flags, frameTypes, RawSession, settingIds } from '../conformance/raw-http2.ts'
import { frame } from '../conformance/websocket-frames.ts'
import { fronts, type Asked, type Carries, type Front, type FrontClient } from '../helpers/fronts.ts'
import { createGate } from '../helpers/gate.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { serverCertificate, startApp, startListening } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { initiation, publicKey, response, transportData } from '../helpers/wireguard-messages.ts'

// What docs/security.md promises, attacked in each way to ask for a tunnel.

const ATTACKER = '127.0.0.2'
const VICTIM = '127.0.0.3'
const roomy = { handshakesPerSecond: 10_000, channelHandshakesPerSecond: 10_000, clientHandshakesPerSecond: 10_000, closeGrace: 200 }
const TLS = { http2: true, https: { ...serverCertificate(), allowHTTP1: true } }

async function startRelay (t: Test, server: object, relay: HubOptions = {}): Promise<FastifyInstance> {
  return await startApp(t, (app) => {
    app.get('/rest', async () => 'rest')
    for (const path of ['/relay/:network', '/other/:network']) {
      app.relay(path, { identify: ({ headers }) => ({ id: headers['x-id'] as string | undefined, publicKey: headers['x-key'] as string | undefined }) })
    }
  }, { server, relay: { ...roomy, ...relay } })
}

async function open (client: FrontClient, path: string, carries?: Carries, headers?: Record<string, string>): Promise<Asked> {
  const asked = await client.ask(path, carries, headers)
  const { status, code } = await asked.answer()
  if (status !== 101 && status !== 200) throw new Error(`refused: ${status} ${code}`)
  return asked
}

/** Tests that the next thing that `to` gets is what `from` sends now. */
async function testNext (t: Test, from: Asked, to: Asked, datagram: Buffer, what: string): Promise<void> {
  await from.sendDatagram(datagram)
  const came = await to.readDatagram()
  t.ok(came.equals(datagram), what, { came: came.toString('latin1', 0, 40) })
}

/** Waits until the relay has taken so many datagrams of the peer with this id. */
async function taken (app: FastifyInstance, id: string, count: number): Promise<void> {
  await until(() => app.relayHub.peers().find((peer) => peer.id === id)?.datagramsIn === count)
}

function forEachFront (title: string, test: (t: Test, front: Front) => Promise<void>): void {
  t.test(title, async (t) => {
    for (const front of fronts) await t.test(front.name, async (t) => await test(t, front))
  })
}

forEachFront('a byte goes to the peers of its channel, and to nobody else', async (t, front) => {
  const app = await startRelay(t, front.server)
  const [attacker, victim] = [await front.client(t, app, ATTACKER), await front.client(t, app, VICTIM)]
  const key = publicKey()
  const [a, b] = [await open(victim, '/relay/home', 'datagrams', { 'x-id': 'a' }), await open(victim, '/relay/home', 'datagrams', { 'x-id': 'b', 'x-key': key.toString('base64') })]
  await testNext(t, a, b, initiation(1, key), 'a handshake')
  await testNext(t, b, a, response(2, 1), 'its answer')
  const [c, d] = [await open(victim, '/relay/home', 'bytes'), await open(victim, '/relay/home', 'bytes')]

  const sent = [Buffer.from('attack'), initiation(1, key), initiation(9, key), response(2, 1), transportData(1), transportData(2)]
  // The same scope and another name, the same name and another scope, names that only look the same.
  const paths = ['/relay/away', '/other/home', '/relay/home%20', '/relay/HOME', '/relay/hom%65%00', '/relay/%2e%2e%2fhome']
  for (const [i, path] of paths.entries()) {
    const tunnel = await open(attacker, path, 'datagrams', { 'x-id': `attacker${i}` })
    for (const datagram of sent) await tunnel.sendDatagram(datagram)
    await taken(app, `attacker${i}`, sent.length)
    // A stream waits for another one in a channel of the same name.
    if (i > 0) await (await open(attacker, path, 'bytes')).send(front.protocol === 'websocket' ? frame(2, 'attack') : Buffer.from('attack'))
  }
  t.equal((await (await attacker.ask('/relay/home', 'bytes')).answer()).status, 409, 'a third one does not get into a pair')

  await testNext(t, a, b, Buffer.from('there'), 'nothing has come between')
  await testNext(t, b, a, Buffer.from('back'), 'nothing has come between')
  const stream = front.protocol === 'websocket' ? frame(2, 'mine') : Buffer.from('mine')
  await c.send(stream)
  t.equal((await d.read(front.protocol === 'websocket' ? 6 : 4)).toString('latin1').slice(-4), 'mine')
  const { drops } = app.relayHub.stats()
  // Alone in each of their channels.
  t.match(drops, { unroutable: paths.length, 'no-responder': 2 * paths.length, 'no-pending': paths.length, 'no-session': 2 * paths.length }, 'counted, each by its reason')
})

forEachFront('a transport message goes to the partner of its session, an initiation to the peer it was made for', async (t, front) => {
  const app = await startRelay(t, front.server)
  const [attacker, victim] = [await front.client(t, app, ATTACKER), await front.client(t, app, VICTIM)]
  const keys = { a: publicKey(), b: publicKey(), mallory: publicKey() }
  const join = async (client: FrontClient, id: keyof typeof keys): Promise<Asked> => await open(client, '/relay/home', 'datagrams', { 'x-id': id, 'x-key': keys[id].toString('base64') })
  const [a, b, mallory] = [await join(victim, 'a'), await join(victim, 'b'), await join(attacker, 'mallory')]
  await testNext(t, a, b, initiation(1, keys.b), 'the peer with that key gets it')
  // Mallory answers in the place of b, guesses indices, and sends what is no WireGuard.
  for (const forged of [response(3, 1), transportData(1), transportData(2), Buffer.from('junk')]) await mallory.sendDatagram(forged)
  await taken(app, 'mallory', 4)
  await testNext(t, b, a, response(2, 1), 'the answer of whom it was made for')
  for (const forged of [response(2, 1), transportData(1), transportData(2)]) await mallory.sendDatagram(forged)
  await taken(app, 'mallory', 7)
  await testNext(t, a, b, transportData(2), 'the partner gets it')
  await testNext(t, b, a, transportData(1), 'the partner gets it')
  await testNext(t, a, mallory, initiation(5, keys.mallory), 'and mallory nothing but what was made for it')
  t.match(app.relayHub.stats().drops, { 'no-pending': 2, 'no-session': 4, unroutable: 1 })
})

forEachFront('before the hooks have agreed there is one answer, and nothing else', async (t, front) => {
  const gate = createGate()
  let identified = 0
  const app = await startApp(t, (app) => {
    app.relay('/relay', {
      onRequest: [gate.hook, async (_request, reply) => await reply.code(401).send({ code: 'NO' })],
      identify: () => {
        identified++
        return {}
      }
    })
  }, { server: front.server, relay: roomy })
  const client = await front.client(t, app, ATTACKER)
  const asked = await client.ask('/relay')
  // Early data, as if it were in.
  for (let i = 0; i < 10; i++) await asked.sendDatagram(Buffer.alloc(1000))
  await gate.reached
  gate.open()
  t.same(await asked.answer(), { status: 401, code: 'NO' })
  await asked.ended()
  t.equal(identified, 0)
  t.match(app.relayHub.stats(), { peers: 0, attached: 0, datagramsIn: 0, refused: { 401: 1 } })
})

for (const tls of [false, true]) {
  t.test(`over HTTP/1.1${tls ? ', TLS' : ''}, what another parser might read differently is refused before any hook`, async (t) => {
    let hooks = 0
    const app = await startApp(t, (app) => {
      app.addHook('onRequest', async () => { hooks++ })
      app.get('/rest', async () => 'rest')
      app.relay('/relay/:id')
    }, { server: tls ? TLS : {}, relay: roomy })
    const rows: Record<string, [text: string, code: string]> = {
      'two Host headers': [upgradeText('/relay/x', { headers: { Host: 'other' } }), 'FST_RELAY_HOST_HEADER'],
      'no Host header': [upgradeText('/relay/x', { host: false, version: '1.0' }), 'FST_RELAY_'],
      'HTTP/1.0': [upgradeText('/relay/x', { version: '1.0' }), 'FST_RELAY_HTTP_VERSION'],
      'an absolute target': [upgradeText('http://localhost/relay/x'), 'FST_RELAY_REQUEST_TARGET'],
      'Content-Length': [upgradeText('/relay/x', { headers: { 'Content-Length': '5' }, body: 'hello' }), 'FST_RELAY_BODY'],
      'Transfer-Encoding': [upgradeText('/relay/x', { headers: { 'Transfer-Encoding': 'chunked' }, body: '0\r\n\r\n' }), 'FST_RELAY_BODY'],
      'a request behind another': [requestText('/rest') + upgradeText('/relay/x'), 'FST_RELAY_PIPELINED']
    }
    for (const [title, [text, code]] of Object.entries(rows)) {
      const before = hooks
      const client = await RawClient.dial(t, app, { tls })
      await client.send(text)
      const all = (await client.readToEnd()).toString()
      const isPipelined = code === 'FST_RELAY_PIPELINED'
      t.match(all, new RegExp(`HTTP/1.1 400 Bad Request[^]*"code":"${code}`), title)
      t.equal(all.split('HTTP/1.1 ').length - 1, isPipelined ? 2 : 1, `${title}: one answer for each request`)
      t.equal(hooks - before, isPipelined ? 1 : 0, `${title}: no hook runs for it`)
    }
    t.equal(app.relayHub.stats().attached, 0)
  })

  t.test(`over HTTP/2${tls ? ', TLS' : ''}, what another parser might read differently is refused, and no tunnel comes of it`, async (t) => {
    let hooks = 0
    const app = await startApp(t, (app) => {
      app.addHook('onRequest', async () => { hooks++ })
      app.relay('/relay/:id')
    }, { server: (tls ? TLS : { http2: true }) as FastifyServerOptions, relay: roomy })
    const session = await RawSession.open(t, app, { tls })
    const rows: Record<string, Record<string, string>> = {
      'a Host that is not :authority': { host: 'other' },
      'an absolute path': { ':path': 'http://localhost/relay/x' },
      'a path without a slash': { ':path': 'relay/x' },
      'a body': { 'content-length': '5' },
      'an Upgrade': { upgrade: 'spanza' },
      'a Transfer-Encoding': { 'transfer-encoding': 'chunked' }
    }
    for (const [title, headers] of Object.entries(rows)) {
      const stream = session.request(connectHeaders('/relay/x', 'spanza', headers))
      await until(() => stream.isOver || stream.status !== undefined)
      t.not(stream.status, 200, `${title}: ${stream.status ?? `RST_STREAM ${stream.resetCode}`}`)
    }
    t.equal(app.relayHub.stats().attached, 0)
    t.equal((await session.connect('/relay/x', 'spanza')).status, 200, 'the session goes on')
    t.equal(hooks, 1, 'no hook has run for any of them')
  })

  t.test(`an upgrade to what is no relay route is answered as without the plugin${tls ? ', TLS' : ''}`, async (t) => {
    const start = async (withRelay: boolean): Promise<FastifyInstance> => {
      const setUp = (app: FastifyInstance): void => {
        app.get('/rest', async ({ headers }) => `rest ${headers.upgrade}`)
        app.post('/relay', async () => 'posted')
        if (withRelay) app.relay('/relay')
      }
      if (withRelay) return await startApp(t, setUp, { server: tls ? { https: serverCertificate() } : {}, relay: roomy })
      const app = Fastify((tls ? { https: serverCertificate() } : {}) as FastifyServerOptions) as FastifyInstance
      setUp(app)
      return await startListening(t, app)
    }
    const [withRelay, without] = [await start(true), await start(false)]
    for (const text of [
      upgradeText('/rest'), upgradeText('/rest', { headers: { Upgrade: 'websocket', 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' } }),
      upgradeText('/nowhere'), upgradeText('/%'), upgradeText('/rest', { method: 'POST', headers: { 'Content-Length': '2' }, body: 'hi' }),
      upgradeText('/relay', { method: 'POST', headers: { 'Content-Length': '0' } })
    ]) {
      const [one, other] = await Promise.all([withRelay, without].map(async (app) => {
        const client = await RawClient.dial(t, app, { tls })
        await client.send(text)
        const { head, body } = await client.answer()
        client.socket.destroy()
        return head.replace(/^date: .*\r\n/im, '') + body
      }))
      t.equal(one, other, text.slice(0, text.indexOf('\r\n')))
    }
    t.same(withRelay.relayHub.stats().refused, {})
  })
}

forEachFront('a tunnel that breaks, stalls or lies ends alone, and REST beside it is served', async (t, front) => {
  const app = await startRelay(t, front.server)
  const [attacker, victim] = [await front.client(t, app, ATTACKER), await front.client(t, app, VICTIM)]
  const [a, b] = [await open(victim, '/relay/home'), await open(victim, '/relay/home')]
  const isWebSocket = front.protocol === 'websocket'
  const attacks: Record<string, [attack: (tunnel: Asked) => Promise<void>, reason: string]> = {
    'a broken frame': [async (tunnel) => await tunnel.send(Buffer.from('7fffffffffffffff', 'hex')), 'protocol-error'],
    'a frame that is cut': [async (tunnel) => {
      await tunnel.send(isWebSocket ? frame(2, 'cut').subarray(0, 7) : Buffer.from('00000010ff', 'hex'))
      tunnel.end()
    }, isWebSocket ? 'lost' : 'protocol-error'],
    // Over HTTP/1.1 without unread bytes, what Node sends is a FIN.
    'a tunnel that is dropped': [async (tunnel) => tunnel.break(), front.isHttp2 || isWebSocket ? 'lost' : 'ended']
  }
  for (const [title, [attack, reason]] of Object.entries(attacks)) {
    const detached = new Promise<[unknown, { reason: string }]>((resolve) => app.relayHub.once('detach', (...args) => resolve(args)))
    await attack(await open(attacker, '/relay/attack'))
    const [, info] = await detached
    t.equal(info.reason, reason, title)
    await testNext(t, a, b, Buffer.from(title), `${title}: the others go on`)
    await testNext(t, b, a, Buffer.from(title), `${title}: the others go on`)
    t.equal(await victim.get('/rest'), 200)
    t.equal(await attacker.get('/rest'), 200, 'the attacker, too, is served')
  }
  // One that does not read what it gets.
  const stalled = await open(attacker, '/relay/stalled', 'bytes')
  const flood = await open(attacker, '/relay/stalled', 'bytes')
  for (let i = 0; i < 8; i++) await flood.send(isWebSocket ? frame(2, Buffer.alloc(65536)) : Buffer.alloc(65536)).catch(() => {})
  await testNext(t, a, b, Buffer.from('stalled'), 'the others go on')
  t.equal(app.relayHub.stats().peers, 4)
  stalled.break()
})

const unprintable = /[\p{Cc}\u2028\u2029\p{Bidi_Control}]/u

function textsIn (value: unknown): string[] {
  if (typeof value === 'string') return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(textsIn) : []
}

forEachFront('logs hold no query, no token, no control character', async (t, front) => {
  const log: object[] = []
  const stream = { write: (line: string) => { log.push(JSON.parse(line)) } }
  const evil = '\x9b31m\u202e'
  const app = await startApp(t, (app) => {
    app.relay('/relay/:network', { identify: ({ headers }) => ({ id: headers['x-id'] === undefined ? undefined : `${evil}\x1b[2J\n` }) })
    app.relay('/secret/:secret', { onRequest: async () => { throw Object.assign(new Error(`no\n${evil}`), { statusCode: 403, code: `E\r${evil}` }) } })
  }, { server: { ...front.server, logger: { stream }, disableRequestLogging: true, requestIdHeader: 'x-request-id' }, relay: roomy })
  const client = await front.client(t, app, ATTACKER)
  const header = { authorization: 'Bearer topsecret', 'x-request-id': front.isHttp2 ? 'x' : '\x9b31m', cookie: 'topsecret' }
  const tunnel = await open(client, '/relay/a%1b%5b31m%c2%9b%e2%80%ae?token=topsecret', 'datagrams', { ...header, 'x-id': '1' })
  tunnel.break()
  await until(() => app.relayHub.stats().peers === 0)
  for (const path of ['/secret/topsecret', '/relay/x?topsecret', '/relay/x;topsecret']) {
    const asked = await client.ask(path, 'datagrams', { ...header, ...(path.startsWith('/secret') ? {} : { 'spanza-framing': 'topless\x9b', 'sec-websocket-protocol': 'none' }) })
    t.ok((await asked.answer()).status >= 400, path)
  }
  await until(() => log.filter((line) => 'refusal' in line).length === 3)
  t.ok(log.some((line) => 'reason' in line), 'a line for the tunnel')
  const texts = textsIn(log.filter((line) => !('err' in line)))
  t.same(texts.filter((text) => text.includes('topsecret')), [], 'no secret')
  t.same(texts.filter((text) => unprintable.test(text)), [], 'nothing unprintable')
})

t.test('what is told and logged about handshakes has no control characters, and a length', (t) => {
  const evil = `\x1b[2J\x9b31m\u202e\n${'x'.repeat(1000)}`
  for (const fault of ['alone', 'no-responder', 'peer-away', 'unanswered', 'initiation-rate', 'mac1-budget', 'index-collision'] as const) {
    const now = new Date()
    const told = [
      noticeText(fault, { count: 3, asked: 2 }, evil, new Identity(evil, true, undefined)),
      faultText({ fault, id: evil, asked: 2, count: 3, since: now, lastAt: now })
    ]
    for (const text of told) {
      t.notMatch(text, unprintable, fault)
      t.ok(text.length < 400, `${fault}: ${text.length} characters`)
    }
  }
  t.end()
})

/** What keeps connections open and takes nothing. */
const holders: Record<string, { server: object, hold: (t: Test, app: FastifyInstance) => Promise<unknown> }> = {}
for (const tls of [false, true]) {
  const server = tls ? TLS : { http2: true }
  const suffix = tls ? ', TLS' : ''
  const blocked = { tls, allowHalfOpen: true, settings: { [settingIds.INITIAL_WINDOW_SIZE]: 0 } }
  holders[`HTTP/2${suffix}: refusals by hooks that nobody takes`] = {
    server,
    hold: async (t, app) => {
      const session = await RawSession.open(t, app, blocked)
      for (let i = 0; i < 20; i++) session.request(connectHeaders('/guarded', 'spanza'))
      await until(() => app.relayHub.stats().refused['401'] === 20)
    }
  }
  holders[`HTTP/2${suffix}: handshakes in a slow hook`] = {
    server,
    hold: async (t, app) => {
      const session = await RawSession.open(t, app, blocked)
      for (let i = 0; i < 20; i++) session.request(connectHeaders('/slow', 'spanza'))
      await session.roundTrip()
    }
  }
  holders[`HTTP/2${suffix}: a session that was refused, and keeps its side open`] = {
    server,
    hold: async (t, app) => {
      const session = await RawSession.open(t, app, { tls, allowHalfOpen: true })
      t.equal(await session.request(connectHeaders('/guarded', 'spanza')).answer(), 401)
      session.send(frameTypes.HEADERS, flags.END_HEADERS, 99, Buffer.alloc(0))
    }
  }
  holders[`HTTP/1.1${suffix}: an answer of a hook that nobody takes`] = {
    server: tls ? TLS : {},
    hold: async (t, app) => {
      const client = await RawClient.dial(t, app, { tls, allowHalfOpen: true })
      client.socket.pause()
      await client.send(upgradeText('/long'))
      await until(() => app.relayHub.stats().refused['403'] === 1)
    }
  }
  holders[`HTTP/1.1${suffix}: refusals by hooks, kept open`] = {
    server: tls ? TLS : {},
    hold: async (t, app) => {
      const client = await RawClient.dial(t, app, { tls, allowHalfOpen: true })
      client.socket.pause()
      await client.send(upgradeText('/guarded'))
      await until(() => app.relayHub.stats().refused['401'] === 1)
    }
  }
}

for (const [what, { server, hold }] of Object.entries(holders)) {
  t.test(`app.close() returns in spite of a client with ${what}`, { timeout: 15_000 }, async (t) => {
    const app = Fastify(server as FastifyServerOptions) as FastifyInstance
    await app.register(spanzaRelay, { ...roomy, handshakeTimeout: 600_000 })
    app.relay('/guarded', { onRequest: async (_request, reply) => await reply.code(401).send('no') })
    app.relay('/slow', { onRequest: async () => await new Promise(() => {}) })
    app.relay('/long', { onRequest: async (_request, reply) => await reply.code(403).send(Buffer.alloc(32 * 1024 * 1024)) })
    await app.listen({ port: 0, host: '127.0.0.1' })
    await hold(t, app)
    await app.close()
    t.equal(app.server.listening, false)
  })
}
