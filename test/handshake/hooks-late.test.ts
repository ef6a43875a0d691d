import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { requestText, upgradeText, RawClient } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, startApp, testJoined, testRefusal } from '../helpers/relay-app.ts'
import type { RelayRouteOptions } from '../../lib/index.ts'

// What hooks do when the answer is already another's, and what they do past Fastify. Nothing of it may reach a
// tunnel, or end the process; an exception that nobody catches fails these tests.

type Act = (reply: FastifyReply, request: FastifyRequest) => unknown

/** What a hook may do at a time when it is too late. */
const acts: Record<string, Act> = {
  'sends a reply': (reply) => reply.code(403).send({ too: 'late' }),
  'sends two replies': (reply) => { reply.code(403).send('one'); reply.code(403).send('two') },
  'sends an error': (reply) => reply.send(new Error('late')),
  redirects: (reply) => reply.redirect('/late'),
  'calls the 404 handler': (reply) => { reply.callNotFound() },
  'sets a header': (reply) => reply.header('x-late', 'yes'),
  throws: () => { throw new Error('late') },
  'throws what is no error': () => { throw 'late' }, // eslint-disable-line no-throw-literal
  hijacks: (reply) => reply.hijack(),
  'writes on the raw response': (reply) => { reply.hijack(); reply.raw.write('late') },
  'ends the raw response': (reply) => { reply.hijack(); reply.raw.end('late') },
  'ends the raw response twice, with nothing': (reply) => { reply.hijack(); reply.raw.end(); reply.raw.end() },
  'writes the head of the raw response': (reply) => { reply.hijack(); reply.raw.writeHead(200).end('late') },
  'destroys the raw response': (reply) => { reply.hijack(); reply.raw.destroy() },
  'destroys the request': (_reply, request) => request.raw.destroy()
}

/** Lets what was set off by now happen. */
async function settle (app: FastifyInstance): Promise<void> {
  await app.inject('/')
  await new Promise((resolve) => setImmediate(resolve))
}

/** Tests that a new tunnel can be had, so nothing is broken. */
async function testAlive (t: Test, app: FastifyInstance): Promise<void> {
  await testJoined(t, await openBare(t, app, '/alive'), await openBare(t, app, '/alive'))
}

t.test('behind the deadline, nothing comes of a hook that', async (t) => {
  for (const [what, act] of Object.entries(acts)) {
    for (const style of ['async', 'callback'] as const) {
      await t.test(`${what} (${style})`, async (t) => {
        let open = (): void => {}
        const opened = new Promise<void>((resolve) => { open = resolve })
        let acted: Promise<unknown> = Promise.resolve()
        const hooks: Record<typeof style, RelayRouteOptions['onRequest'] & object> = {
          async: async (request, reply) => {
            acted = opened.then(() => act(reply, request))
            await acted
          },
          callback: (request, reply, done) => {
            acted = opened.then(() => act(reply, request))
            acted.then(() => done(), done)
          }
        }
        const app = await startApp(t, (app) => {
          app.relay('/relay', { onRequest: hooks[style] })
          app.relay('/alive')
        }, { relay: { handshakeTimeout: 20 } })
        await testRefusal(t, app, upgradeText('/relay'), { statusCode: 503, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' })
        open()
        await acted.catch(() => {})
        await settle(app)
        t.match(app.relayHub.stats(), { attached: 0, refused: { FST_RELAY_HANDSHAKE_TIMEOUT: 1 } })
        await testAlive(t, app)
      })
    }
  }
})

t.test('behind the 101, nothing reaches the tunnel of what a hook left behind', async (t) => {
  const reachable = Object.entries(acts).filter(([what]) => !what.startsWith('throws') && !what.includes('destroys'))
  for (const [what, act] of reachable) {
    await t.test(`that ${what}`, async (t) => {
      let late = (): void => {}
      const app = await startApp(t, (app) => app.relay('/relay', {
        onRequest: async (request, reply) => {
          late = () => {
            // Node itself may refuse, as to anybody who answers twice.
            try {
              act(reply, request)
            } catch {}
          }
        }
      }))
      const [a, b] = [await openBare(t, app, '/relay'), await openBare(t, app, '/relay')]
      late()
      await settle(app)
      await testJoined(t, a, b)
      await testJoined(t, b, a)
      t.match(app.relayHub.stats(), { attached: 2, peers: 2, refused: {} })
    })
  }

  for (const what of ['destroys the raw response', 'destroys the request']) {
    await t.test(`that ${what}: at most the tunnel ends`, async (t) => {
      let late = (): void => {}
      const app = await startApp(t, (app) => {
        app.relay('/relay', { onRequest: async (request, reply) => { late = () => { acts[what]!(reply, request) } } })
        app.relay('/alive')
      })
      await openBare(t, app, '/relay')
      late()
      await settle(app)
      t.same(app.relayHub.stats().refused, {})
      await testAlive(t, app)
    })
  }
})

t.test('two hooks that reply: the first is the answer', async (t) => {
  const late = new Promise<void>((resolve) => setImmediate(resolve))
  const pairs: Record<string, RelayRouteOptions['onRequest'] & object> = {
    'one after the other in a hook': (_request, reply) => { reply.code(401).send('one'); reply.code(402).send('two') },
    'one reply, and an error for the callback': (_request, reply, done) => { reply.code(401).send('one'); done(new Error('two')) },
    'one reply, and the hook goes on': (_request, reply, done) => { reply.code(401).send('one'); done() },
    'one reply, and an error that is thrown': async (_request, reply) => { reply.code(401).send('one'); throw new Error('two') },
    'one reply, and one from a turn that comes later': async (_request, reply) => {
      late.then(() => reply.code(402).send('two'), () => {})
      return await reply.code(401).send('one')
    }
  }
  for (const [what, onRequest] of Object.entries(pairs)) {
    await t.test(what, async (t) => {
      let identified = 0
      const app = await startApp(t, (app) => {
        app.relay('/relay', { onRequest, identify: () => ({ context: ++identified }) })
        app.relay('/alive')
      })
      const refusals = refusalsOf(app)
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay'))
      t.match(await client.answer(), { statusCode: 401, body: 'one' })
      t.equal(await client.closed, undefined)
      t.equal(client.unread, '')
      // Not with which status: `reply.code` of the second hook still changes what Fastify and Node know of it.
      t.equal(refusals.length, 1, 'told once')
      t.equal(identified, 0)
      await testAlive(t, app)
    })
  }
})

t.test('a hook that answers past Fastify', async (t) => {
  const answers: Record<string, [Act, number, string]> = {
    'by hijacking': [(reply) => { reply.hijack(); reply.raw.writeHead(403, { 'content-length': 8 }).end('no entry') }, 403, 'no entry'],
    'by hijacking, in parts': [(reply) => { reply.hijack(); reply.raw.writeHead(403); reply.raw.write('no '); setImmediate(() => reply.raw.end('entry')) }, 403, '3\r\nno \r\n5\r\nentry\r\n0\r\n\r\n'],
    'without hijacking': [(reply) => { reply.raw.writeHead(403, { 'content-length': 8 }).end('no entry') }, 403, 'no entry'],
    'with a large answer': [(reply) => { reply.hijack(); reply.raw.writeHead(200, { 'content-length': 5_000_000 }).end(Buffer.alloc(5_000_000, 'x')) }, 200, 'x'.repeat(5_000_000)]
  }
  for (const [what, [act, statusCode, text]] of Object.entries(answers)) {
    for (const style of ['async', 'callback'] as const) {
      await t.test(`${what} is answered so, once (${style})`, async (t) => {
        const app = await startApp(t, (app) => {
          app.relay('/relay', {
            onRequest: style === 'async'
              ? async (request, reply) => { act(reply, request); return reply }
              : (request, reply) => { act(reply, request) }
          })
          app.relay('/alive')
        })
        const { body } = await testRefusal(t, app, upgradeText('/relay'), { statusCode })
        t.ok(body === text, 'the content')
        await testAlive(t, app)
      })
    }
  }

  await t.test('and then lets the request go on, gets no second answer from the relay', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay', { onRequest: async (_request, reply) => { reply.raw.writeHead(403, { 'content-length': 2 }).end('no') } })
      app.relay('/alive')
    })
    const { body } = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 403 })
    t.equal(body, 'no')
    await testAlive(t, app)
  })

  await t.test('with a 101 of its own gets no tunnel of ours, and the connection ends', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay', { onRequest: (_request, reply) => { reply.hijack(); reply.raw.writeHead(101, { connection: 'upgrade', upgrade: 'mine' }).end() } })
    })
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    t.match(await client.head(), { statusCode: 101, headers: { upgrade: 'mine' } })
    t.equal(await client.closed, undefined)
    t.match(app.relayHub.stats(), { attached: 0, peers: 0 })
  })

  await t.test('and never ends is broken off by the deadline', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay', { onRequest: (_request, reply) => { reply.hijack(); reply.raw.write('and so on') } })
      app.relay('/alive')
    }, { relay: { handshakeTimeout: 20 } })
    const refusals = refusalsOf(app)
    const refused = once(app.relayHub, 'refuse')
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    await Promise.all([client.closed, refused])
    await testAlive(t, app)
    t.match(refusals, [{ statusCode: 200, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' }], 'told once')
  })

  await t.test('by the socket itself keeps what it does', async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay', { onRequest: (request, reply) => { reply.hijack(); request.raw.socket.end('HTTP/1.1 402 Mine\r\nContent-Length: 0\r\n\r\n') } })
      app.relay('/alive')
    })
    const refusals = refusalsOf(app)
    const refused = once(app.relayHub, 'refuse')
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    t.equal((await client.head()).statusCode, 402)
    await Promise.all([client.closed, refused])
    await testAlive(t, app)
    t.equal(refusals.length, 1, 'told once')
  })
})

t.test('a reply whose client reads nothing is broken off by the deadline', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay', { onRequest: (_request, reply) => { reply.code(403).send(Buffer.alloc(50_000_000)) } })
    app.relay('/alive')
  }, { relay: { handshakeTimeout: 100 } })
  const refusals = refusalsOf(app)
  const refused = once(app.relayHub, 'refuse')
  const connected = once(app.server, 'connection') as Promise<[Socket]>
  const client = await RawClient.dial(t, app)
  const [socket] = await connected
  const broken = once(socket, 'close')
  client.socket.pause()
  await client.send(upgradeText('/relay'))
  await refused
  await testAlive(t, app)
  await broken
  t.match(refusals, [{ statusCode: 403, code: undefined }], 'told once, when it is answered')
})

t.test('REST beside it stays as it was after all that', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay', { onRequest: async () => { throw new Error('no') } })
    app.get('/rest', async () => 'rest')
  })
  const client = await RawClient.dial(t, app)
  for (let i = 0; i < 3; i++) {
    await testRefusal(t, app, upgradeText('/relay'), { statusCode: 500 })
    await client.send(requestText('/rest'))
    t.match(await client.answer(), { body: 'rest', headers: { connection: 'keep-alive' } })
  }
})
