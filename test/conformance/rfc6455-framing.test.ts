import websocket from '@fastify/websocket'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { SeededRandom } from '../helpers/random.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openWebSocket } from '../helpers/websocket.ts'
import { framingErrors, limitErrors, validCloseCodes } from './framing-errors.ts'
import { left, newChannel, startServer, type ServerOptions } from './server.ts'
import { closeFrame, fragments, frame, message, opcodes, readClose, readFrame, readMessage } from './websocket-frames.ts'

// Frames of RFC 6455 over HTTP/1.1: with the relay's own WebSocket server, and with that of @fastify/websocket, whose options are
// the app's.

const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

const servers: Record<string, { options: ServerOptions, errors: typeof framingErrors }> = {
  'the relay\'s own server': { options: { server: {} }, errors: { ...framingErrors, ...limitErrors } },
  'the server of @fastify/websocket': {
    options: { server: {}, setUp: async (app) => { await app.register(websocket as never) } },
    errors: framingErrors
  },
  'the server of @fastify/websocket with limits of its own': {
    options: { server: {}, setUp: async (app) => { await app.register(websocket as never, { options: { maxPayload: 1000, maxFragments: 100 } }) } },
    errors: {
      'a message above the app\'s maxPayload': { sent: message(Buffer.alloc(1001)), code: 1009 },
      'a message of more fragments than the app allows': { sent: Buffer.concat(fragments(Array(101).fill('x'))), code: 1008 }
    }
  }
}

async function open (t: Test, app: FastifyInstance, path: string, id: string): Promise<RawClient> {
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText(path, { headers: { Upgrade: 'websocket', 'Sec-WebSocket-Key': KEY, 'Sec-WebSocket-Version': '13', 'X-Id': id } }))
  t.equal((await client.head()).statusCode, 101)
  return client
}

for (const [name, { options, errors }] of Object.entries(servers)) {
  t.test(name, async (t) => {
    const app = await startServer(t, options)

    for (const [title, { sent, code }] of Object.entries(errors)) {
      await t.test(`closes with ${code}: ${title}`, async (t) => {
        const path = `/relay/${newChannel()}`
        const other = await open(t, app, path, 'other')
        const client = await open(t, app, path, 'wrong')
        const gone = left(app, 'wrong')
        await client.send(sent)
        t.equal((await readClose(client)).code, code)
        t.equal((await gone).reason, 'protocol-error')
        await client.send(closeFrame(code))
        t.equal((await client.readToEnd()).length, 0, 'nothing follows the Close frame')
        t.equal(await client.closed, undefined, 'in good order')
        await other.send(frame(opcodes.PING))
        t.equal((await readFrame(other)).first, 0x80 | opcodes.PONG, 'the others go on')
        other.socket.destroy()
      })
    }

    await t.test('passes on messages however they are cut', async (t) => {
      const path = `/relay/${newChannel()}`
      const from = await open(t, app, path, 'from')
      const to = await open(t, app, path, 'to')
      const random = new SeededRandom()
      t.comment(`seed ${random.seed}`)
      for (let i = 0; i < 200; i++) {
        const datagram = Buffer.concat([Buffer.from([255]), random.bytes(random.below(900))])
        const [first, ...rest] = fragments(random.chunks(datagram, random.pick([50, 1000])))
        const bytes = Buffer.concat([first!, frame(opcodes.PONG), ...rest])
        for (const chunk of random.chunks(bytes, 300)) await from.send(chunk)
        if (!(await readMessage(to)).equals(datagram)) t.fail(`round ${i}`)
      }
      t.pass()
    })

    await t.test('answers a ping with what it brought, and a Close frame with its code', async (t) => {
      const client = await open(t, app, `/relay/${newChannel()}`, 'a')
      const payload = randomBytes(125)
      await client.send(frame(opcodes.PING, payload))
      const pong = await readFrame(client)
      t.equal(pong.first, 0x80 | opcodes.PONG)
      t.ok(pong.payload.equals(payload))
      client.socket.destroy()
      for (const code of validCloseCodes) {
        const client = await open(t, app, `/relay/${newChannel()}`, String(code))
        const gone = left(app, String(code))
        await client.send(closeFrame(code, 'bye'))
        t.equal((await readClose(client)).code, code)
        t.same(await gone, { reason: 'ended', text: 'the client closed its WebSocket' })
        t.equal((await client.readToEnd()).length, 0)
      }
    })

    await t.test('serves the client of ws', async (t) => {
      const path = `/relay/${newChannel()}`
      const [from, to] = [await openWebSocket(t, app, path, ['spanza.v1']), await openWebSocket(t, app, path, [], { perMessageDeflate: true })]
      t.equal(from.protocol, 'spanza.v1')
      t.equal(to.protocol, '')
      t.equal(to.extensions, '', 'permessage-deflate is not agreed on')
      from.send(Buffer.alloc(900, 255))
      const [received] = await once(to, 'message') as [Buffer]
      t.ok(received.equals(Buffer.alloc(900, 255)))
      to.send('a text')
      const [code] = await once(to, 'close')
      t.equal(code, 1003)
      from.close(4321, 'bye')
      const [echoed] = await once(from, 'close')
      t.equal(echoed, 4321)
    })
  })
}
