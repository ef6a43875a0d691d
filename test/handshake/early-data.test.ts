import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { createGate } from '../helpers/gate.ts'
import type { RelayRouteOptions } from '../../lib/index.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { wireguardMessage } from '../helpers/datagrams.ts'
import { frames } from '../helpers/fake-relay.ts'
import { lines, refused, startTable, switched, testTable } from '../helpers/handshake-table.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'

const SIZES = { 'no byte': 0, '1 byte': 1, '64 KiB': 65_536, '1 MiB': 1_048_576 }

/** How the bytes follow the request. */
const ways: Record<string, (socket: Socket, request: string, early: Buffer) => void> = {
  'in one write with the request': (socket, request, early) => socket.write(Buffer.concat([Buffer.from(request), early])),
  'in a write right behind it': (socket, request, early) => {
    socket.write(request)
    socket.write(early)
  }
}

/** Hooks of a route: `open` lets them go on. */
const hooks: Record<string, () => { options: RelayRouteOptions, reached: Promise<void>, open: () => void }> = {
  'synchronous hooks': () => ({ options: { onRequest: (_request, _reply, done) => done() }, reached: Promise.resolve(), open: () => {} }),
  'hooks that wait for a turn of the event loop': () =>
    ({ options: { preHandler: async () => await new Promise((resolve) => setImmediate(resolve)) }, reached: Promise.resolve(), open: () => {} }),
  'a slow hook': () => {
    const { hook, open, reached } = createGate()
    return { options: { onRequest: hook }, open, reached }
  },
  'a slow identify': () => {
    const { hook, open, reached } = createGate()
    return { options: { identify: async () => ({ context: await hook() }) }, open, reached }
  }
}

/** Lets the server do all that it can do by now: it has answered others meanwhile. */
async function serveOthers (t: Test, app: FastifyInstance, count = 3): Promise<void> {
  const client = await RawClient.dial(t, app)
  for (let i = 0; i < count; i++) {
    await client.send(requestText('/alive'))
    t.equal((await client.answer()).body, 'alive')
  }
  client.socket.destroy()
}

for (const [way, write] of Object.entries(ways)) {
  t.test(`early data, ${way}`, async (t) => {
    for (const [how, createHooks] of Object.entries(hooks)) {
      for (const [size, length] of Object.entries(SIZES)) {
        await t.test(`${size} on a stream channel, with ${how}: the partner gets it whole`, async (t) => {
          const { options, open, reached } = createHooks()
          const app = await startTable(t, (app) => {
            app.relay('/relay', { ...options, scope: 'one' })
            app.relay('/partner', { scope: 'one' })
          })
          const early = randomBytes(length)
          const sender = await RawClient.dial(t, app)
          write(sender.socket, upgradeText('/relay'), early)
          await reached
          await serveOthers(t, app)
          open()
          t.equal((await sender.head()).statusCode, 101)
          sender.socket.write('late')
          const partner = await openTunnel(t, app, { path: '/partner', framing: 'raw' })
          await until(() => partner.chunks.reduce((sum, chunk) => sum + chunk.length, 0) >= length + 4)
          t.ok(partner.bytes.equals(Buffer.concat([early, Buffer.from('late')])))
        })

        for (const framing of [wg, len16]) {
          await t.test(`${size === 'no byte' ? 'none' : size} of datagrams in ${framing.name}, with ${how}: the partner gets each`, async (t) => {
            const { options, open, reached } = createHooks()
            const app = await startTable(t, (app) => {
              app.relay('/relay', { ...options, scope: 'one' })
              app.relay('/partner', { scope: 'one' })
            })
            const partner = await openTunnel(t, app, { path: '/partner', framing: 'wg' })
            const sent = Array.from({ length: Math.ceil(length / 1024) }, (_, index) => wireguardMessage(4, 1024 + index % 7))
            const late = wireguardMessage(4, 99)
            const sender = await RawClient.dial(t, app)
            write(sender.socket, upgradeText('/relay', { headers: { 'Spanza-Framing': framing.name } }), frames(framing, sent))
            await reached
            await serveOthers(t, app)
            open()
            t.equal((await sender.head()).statusCode, 101)
            sender.socket.write(frames(framing, [late]))
            const received = await partner.datagrams.take(sent.length + 1)
            t.ok(Buffer.concat(received).equals(Buffer.concat([...sent, late])))
            t.same(Object.entries(app.relayHub.stats().drops).filter(([, count]) => count > 0), [], 'nothing is dropped')
          })
        }
      }
    }
  })
}

t.test('what a client sends while a hook runs waits with the client', async (t) => {
  const { hook, open, reached } = createGate()
  let socket: Socket | undefined
  const app = await startTable(t, (app) => {
    app.relay('/relay', {
      scope: 'one',
      onRequest: async (request) => {
        socket = request.raw.socket
        await hook()
      }
    })
    app.relay('/partner', { scope: 'one' })
  })
  const bytes = randomBytes(64 * 1_048_576)
  const sender = await RawClient.dial(t, app)
  sender.socket.write(upgradeText('/relay'))
  sender.socket.write(bytes)
  await reached
  // Long enough to read megabytes, if anybody did.
  await serveOthers(t, app, 100)
  t.ok(socket!.bytesRead < 512 * 1024, `the relay has read little of it: ${socket!.bytesRead} bytes`)
  t.ok(socket!.readableLength < 512 * 1024, 'and keeps no more')
  t.ok(sender.socket.writableLength > 0, 'the client has got the rest')
  open()
  const partner = await openTunnel(t, app, { path: '/partner', framing: 'raw' })
  t.equal((await sender.head()).statusCode, 101)
  await until(() => partner.chunks.reduce((sum, chunk) => sum + chunk.length, 0) >= bytes.length)
  t.ok(partner.bytes.equals(bytes), 'and nothing is lost')
})

t.test('early data that is no frame ends the tunnel, behind its 101', async (t) => {
  const app = await startTable(t)
  const client = await RawClient.dial(t, app)
  const detached = once(app.relayHub, 'detach')
  // A control frame of a type that is not there, and longer than any.
  await client.send(Buffer.concat([Buffer.from(upgradeText('/relay', { headers: { 'Spanza-Framing': 'wg' } })), Buffer.alloc(65_536, 0xff)]))
  t.equal((await client.head()).statusCode, 101)
  const [, { reason }] = await detached
  t.equal(reason, 'protocol-error')
})

t.test('a second request behind an upgrade', async (t) => {
  const app = await startTable(t)
  const ask = (...headers: string[]): string => lines('GET /relay HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza', ...headers)
  await testTable(t, app, [
    ['is data of the tunnel, and never answered', ask() + requestText('/alive'), switched()],
    ['is not answered behind a refusal', ask('Spanza-Framing: cobs') + requestText('/alive'),
      refused(400, 'FST_RELAY_FRAMING', 'No framing in common: asked for "cobs", this route has: wg, len16, raw')],
    ['is not answered behind a refusal for the request\'s form', ask('Content-Length: 5') + 'hello' + requestText('/alive'),
      refused(400, 'FST_RELAY_BODY', 'An upgrade request must not have a body, this one has the header Content-Length')]
  ])
})

t.test('an upgrade behind other requests', async (t) => {
  const answers: Record<string, (reply: { send: (body: string) => unknown }) => unknown> = {
    'at once': (reply) => reply.send('answer'),
    'in a later turn of the event loop': async () => {
      await new Promise((resolve) => setImmediate(resolve))
      return 'answer'
    },
    never: () => {}
  }
  for (const [when, answer] of Object.entries(answers)) {
    await t.test(`in one write with a request that is answered ${when} ends the connection, and harms nobody`, async (t) => {
      const app = await startTable(t, (app) => {
        app.relay('/relay')
        app.get('/rest', (_request, reply) => answer(reply))
      })
      const client = await RawClient.dial(t, app)
      await client.send(requestText('/rest') + upgradeText('/relay') + 'early')
      t.notMatch((await client.readToEnd()).toString(), 'HTTP/1.1 101')
      await client.closed
      t.match(app.relayHub.stats(), { attached: 0, peers: 0 })
      await serveOthers(t, app)
      await testTable(t, app, [['and the next one is a tunnel', upgradeText('/relay'), switched()]])
    })
  }

  await t.test('that are answered already becomes a tunnel', async (t) => {
    const app = await startTable(t)
    const client = await RawClient.dial(t, app)
    for (let i = 0; i < 3; i++) {
      await client.send(requestText('/alive'))
      t.equal((await client.answer()).body, 'alive')
    }
    await client.send(upgradeText('/relay') + 'early')
    t.equal((await client.head()).statusCode, 101)
    const partner = await openTunnel(t, app, { path: '/relay', framing: 'raw' })
    await until(() => partner.bytes.toString() === 'early')
  })
})
