import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { FastifyReply } from 'fastify'
import t from 'tap'
import { createGate } from '../helpers/gate.ts'
import { requestText, upgradeText, RawClient } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, startApp, testJoined, testRefusal } from '../helpers/relay-app.ts'

t.test('the 101', async (t) => {
  const answers: Array<[string, Record<string, string>, string]> = [
    ['a bare tunnel', {}, 'Upgrade: spanza\r\n'],
    ['a bare tunnel that was asked for by name', { 'Spanza-Framing': 'raw' }, 'Upgrade: spanza\r\nSpanza-Framing: raw\r\n'],
    ['wg', { 'Spanza-Framing': 'wg, len16' }, 'Upgrade: spanza\r\nSpanza-Framing: wg\r\nSpanza-Max-Packet: 1420\r\n'],
    ['len16', { 'Spanza-Framing': 'len16' }, 'Upgrade: spanza\r\nSpanza-Framing: len16\r\nSpanza-Max-Packet: 1420\r\n'],
    ['UoTLV/1', { Upgrade: 'UoTLV/1' }, 'Upgrade: UoTLV/1\r\n'],
    ['UoTLV/1, where a framing is asked for in vain', { Upgrade: 'UoTLV/1', 'Spanza-Framing': 'wg' }, 'Upgrade: UoTLV/1\r\n'],
    ['a token in other letters, behind one that is not spoken', { Upgrade: 'h2c, SPANZA', Connection: 'keep-alive, upgrade' }, 'Upgrade: spanza\r\n']
  ]
  const app = await startApp(t, (app) => app.relay('/relay/:channel'), { relay: { maxPacketSize: 1420 } })
  for (const [index, [what, headers, expected]] of answers.entries()) {
    t.test(`for ${what} it is these bytes and no others`, async (t) => {
      const client = await RawClient.dial(t, app)
      const { head } = await client.upgrade(t, `/relay/${index}`, { headers })
      t.equal(head, `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n${expected}\r\n`)
      t.equal(client.unread, '', 'nothing behind it')
    })
  }
})

t.test('the 101 is a write of its own, also where bytes wait for the tunnel', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  const writes: string[][] = []
  const first = await openBare(t, app, '/relay')
  await first.send('waits')
  app.server.once('connection', (socket: Socket) => {
    // One call of `_write` or `_writev` is what goes to the kernel at once.
    const { _write, _writev } = socket
    socket._write = function (chunk: Buffer | string, ...rest) {
      writes.push([chunk.toString('latin1')])
      _write.call(this, chunk, ...rest)
    }
    socket._writev = function (chunks, callback) {
      writes.push(chunks.map(({ chunk }) => chunk.toString('latin1')))
      _writev!.call(this, chunks, callback)
    }
  })
  const second = await openBare(t, app, '/relay')
  t.equal((await second.read(5)).toString(), 'waits')
  t.same(writes[0], ['HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n\r\n'])
  t.equal(writes.slice(1).flat().join(''), 'waits')
})

t.test('bytes right behind the request are the first of the tunnel', async (t) => {
  for (const size of [0, 1, 65536]) {
    for (const speed of ['sync', 'slow async']) {
      t.test(`${size} of them, ${speed} hooks`, async (t) => {
        const gate = createGate()
        const app = await startApp(t, (app) => app.relay('/relay', {
          onRequest: speed === 'sync' ? (_request, _reply, done) => done() : [async () => {}, gate.hook]
        }))
        const early = randomBytes(size)
        const request = Buffer.concat([Buffer.from(upgradeText('/relay')), early])
        const clients = [await RawClient.dial(t, app), await RawClient.dial(t, app)] as const
        await Promise.all(clients.map(async (client) => await client.send(request)))
        gate.open()
        for (const client of clients) t.equal((await client.head()).statusCode, 101)
        for (const client of clients) await client.send('late')
        for (const client of clients) {
          t.ok((await client.read(size)).equals(early), 'the early ones, whole')
          t.equal((await client.read(4)).toString(), 'late')
        }
      })
    }
  }
})

t.test('a client that has sent early data and ended its stream is no client that has left', async (t) => {
  const gate = createGate()
  const app = await startApp(t, (app) => {
    app.relay('/slow', { scope: 'one', onRequest: gate.hook })
    app.relay('/fast', { scope: 'one' })
  })
  const sender = await RawClient.dial(t, app, { allowHalfOpen: true })
  sender.socket.end(upgradeText('/slow') + 'all there is')
  await gate.reached
  const other = await openBare(t, app, '/fast', {}, { allowHalfOpen: true })
  gate.open()
  t.equal((await sender.head()).statusCode, 101)
  t.equal((await other.readToEnd()).toString(), 'all there is')
  other.socket.end('and the answer')
  t.equal((await sender.readToEnd()).toString(), 'and the answer')
})

t.test('headers that hooks have set', async (t) => {
  await t.test('are passed on, except those that a 101 must not have', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', {
      onRequest: async (_request, reply) => {
        reply.headers({
          'X-Request-Id': '17',
          'Set-Cookie': ['a=1', 'b=2'],
          Connection: 'keep-alive',
          Upgrade: 'h2c',
          'Content-Length': 4,
          'Content-Type': 'text/plain',
          'Content-Encoding': 'gzip',
          'Transfer-Encoding': 'chunked',
          Trailer: 'x',
          'Keep-Alive': 'timeout=5',
          Date: 'now',
          'Spanza-Framing': 'wg',
          'Spanza-Max-Packet': '9'
        })
        reply.raw.setHeader('X-Raw', 'set past Fastify')
        reply.raw.setHeader('Content-Language', 'en')
      }
    }))
    const client = await RawClient.dial(t, app)
    const { head } = await client.upgrade(t, '/relay')
    t.equal(head, 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n' +
      'x-raw: set past Fastify\r\nx-request-id: 17\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n')
    await testJoined(t, client, await openBare(t, app, '/relay'))
  })

  const hostile: Record<string, Record<string, string | string[]>> = {
    'CR and LF in a value': { 'x-name': 'a\r\nInjected: yes' },
    'LF alone': { 'x-name': 'a\nInjected: yes' },
    'CR alone': { 'x-name': 'a\rInjected: yes' },
    'NUL in a value': { 'x-name': 'a\0b' },
    'characters above latin1': { 'x-name': 'a\u{10d}b' },
    'CR and LF in one of several values': { 'x-name': ['a', 'b\r\nInjected: yes'] },
    'a value that is none': { 'x-name': [undefined] as unknown as string[] },
    'CR and LF in a name': { 'x-name\r\nInjected': 'yes' },
    'two bad ones': { 'x-name': 'a\r\nInjected: yes', 'x-other': 'a\r\nInjected: yes' },
    'CR and LF where the 101 has a value of its own': { upgrade: 'a\r\nInjected: yes' }
  }
  for (const [what, headers] of Object.entries(hostile)) {
    const set = async (_request: unknown, reply: FastifyReply): Promise<void> => {
      for (const [name, value] of Object.entries(headers)) reply.header(name, value)
    }
    await t.test(`never reach the wire with ${what}`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { onRequest: set }))
      const expected = { statusCode: 500, code: 'FST_RELAY_ANSWER_HEADER', message: /^A hook set the answer header / } as const
      const { head } = await testRefusal(t, app, upgradeText('/relay'), expected)
      t.notMatch(head, /injected/i)
    })
    await t.test(`do not spoil another refusal with ${what}`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { onRequest: set, identify: () => ({ id: '' }) }))
      const { head } = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 500, code: 'FST_RELAY_IDENTITY' })
      t.notMatch(head, /injected/i)
    })
  }
})

t.test('a refusal arrives whole, whatever the client has sent behind its request', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async (_request, reply) => await reply.code(401).send({ no: 'entry' }) }))
  for (const size of [0, 1, 65536]) {
    await t.test(`${size} bytes`, async (t) => {
      const bytes = Buffer.concat([Buffer.from(upgradeText('/relay')), randomBytes(size)])
      const { body } = await testRefusal(t, app, bytes, { statusCode: 401 })
      t.same(JSON.parse(body), { no: 'entry' })
    })
  }
})

t.test('a client that goes on sending for a moment meets no reset', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async (_request, reply) => await reply.code(401).send() }))
  const client = await RawClient.dial(t, app, { allowHalfOpen: true })
  await client.send(upgradeText('/relay'))
  t.equal((await client.answer()).statusCode, 401)
  for (let i = 0; i < 10; i++) {
    await client.send(randomBytes(1000))
    await new Promise((resolve) => setImmediate(resolve))
  }
  client.socket.end()
  t.equal(await client.closed, undefined)
})

t.test('the deadline', async (t) => {
  const hooks = {
    'a hook hangs': { onRequest: () => {} },
    'an async hook hangs': { preHandler: async () => await new Promise<never>(() => {}) },
    'identify hangs': { identify: async () => await new Promise<never>(() => {}) }
  }
  for (const [what, options] of Object.entries(hooks)) {
    await t.test(`is answered when ${what}`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', options), { relay: { handshakeTimeout: 20 } })
      await testRefusal(t, app, upgradeText('/relay'), {
        statusCode: 503, code: 'FST_RELAY_HANDSHAKE_TIMEOUT', message: /after 20 ms/, headers: { 'retry-after': /^\d+$/ }
      })
    })
  }

  for (const outcome of ['lets the client in', 'refuses', 'fails']) {
    await t.test(`stands when the hook that came too late ${outcome}`, async (t) => {
      const gate = createGate()
      let late: Promise<unknown> | undefined
      const app = await startApp(t, (app) => app.relay('/relay', {
        identify: () => {
          late = gate.hook().then(() => {
            if (outcome === 'refuses') throw Object.assign(new Error('no'), { statusCode: 403 })
            if (outcome === 'fails') throw new TypeError('oh')
          })
          return late as Promise<never>
        }
      }), { relay: { handshakeTimeout: 20 } })
      await testRefusal(t, app, upgradeText('/relay'), { statusCode: 503, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' })
      gate.open()
      await late!.catch(() => {})
      await app.inject('/')
      t.match(app.relayHub.stats(), { attached: 0, refused: { FST_RELAY_HANDSHAKE_TIMEOUT: 1 } })
    })
  }

  await t.test('breaks off an answer that does not end', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', {
      onRequest: (_request, reply) => {
        reply.hijack()
        reply.raw.writeHead(200).write('and so on')
      }
    }), { relay: { handshakeTimeout: 20 } })
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    t.match((await client.head()).statusCode, 200)
    await client.closed
  })

  await t.test('does not matter any more after the 101', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { handlerTimeout: 20 }), { relay: { handshakeTimeout: 20, pairTimeout: 100 } })
    const client = await openBare(t, app, '/relay')
    const [, info] = await once(app.relayHub, 'detach')
    t.equal(info.reason, 'pair-timeout', 'the tunnel ends by a later one')
    t.equal((await client.readToEnd()).toString(), '')
  })
})

t.test('a client that leaves while a hook runs', async (t) => {
  const ways: Record<string, (socket: Socket) => void> = {
    'by closing': (socket) => socket.destroy(),
    'by ending its side': (socket) => socket.end(),
    'by a reset': (socket) => socket.resetAndDestroy()
  }
  for (const [way, leave] of Object.entries(ways)) {
    await t.test(`${way} is told to the hook, and not attached`, async (t) => {
      const gate = createGate()
      let identified = false
      let tellAborted = (): void => {}
      const aborted = new Promise<void>((resolve) => { tellAborted = resolve })
      let signalled: Promise<unknown> | undefined
      const app = await startApp(t, (app) => app.relay('/relay', {
        onRequest: async (request) => {
          signalled = once(request.signal, 'abort')
          await gate.hook()
        },
        onRequestAbort: async () => tellAborted(),
        identify: () => {
          identified = true
          return {}
        }
      }))
      const refused = once(app.relayHub, 'refuse')
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay'))
      await gate.reached
      leave(client.socket)
      await Promise.all([signalled, aborted])
      t.match((await refused)[0], { statusCode: 499, code: 'FST_RELAY_CLIENT_GONE', address: '127.0.0.1', path: '/relay' })
      gate.open()
      await app.inject('/')
      t.match(app.relayHub.stats(), { attached: 0, peers: 0, refused: { FST_RELAY_CLIENT_GONE: 1 } })
      t.notOk(identified, 'identify is not asked any more')
    })
  }

  await t.test('does not replace its own later tunnel', async (t) => {
    const gate = createGate()
    const app = await startApp(t, (app) => app.relay('/relay', {
      preHandler: async (request) => { if (request.headers['x-slow'] !== undefined) await gate.hook() },
      identify: () => ({ id: 'same' })
    }))
    const given = await RawClient.dial(t, app)
    const refused = once(app.relayHub, 'refuse')
    await given.send(upgradeText('/relay', { headers: { 'X-Slow': 'yes' } }))
    await gate.reached
    given.socket.destroy()
    await refused
    await openBare(t, app, '/relay')
    gate.open()
    await app.inject('/')
    t.match(app.relayHub.stats(), { attached: 1, peers: 1, detached: {} })
  })
})

t.test('a connection that breaks right behind the request harms nobody', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/sync')
    app.relay('/async', { onRequest: async () => await new Promise((resolve) => setImmediate(resolve)) })
    app.relay('/refused', { onRequest: async (_request, reply) => await reply.code(401).send() })
  }, { relay: { clientHandshakesPerSecond: 1000 } })
  for (const path of ['/sync', '/async', '/refused']) {
    for (const leave of ['resetAndDestroy', 'destroy'] as const) {
      for (let i = 0; i < 10; i++) {
        const client = await RawClient.dial(t, app)
        await client.send(upgradeText(path))
        client.socket[leave]()
        await client.closed
      }
    }
  }
  const [a, b] = [await openBare(t, app, '/async?of=those-who-stay'), await openBare(t, app, '/async')]
  await testJoined(t, a, b)
})

t.test('an upgrade pipelined behind an unfinished answer costs that connection alone', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay')
    app.get('/slow', (_request, _reply) => {})
  })
  const refusals = refusalsOf(app)
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/slow') + upgradeText('/relay'))
  await client.closed
  t.equal(client.unread, '')
  t.match(app.relayHub.stats(), { attached: 0, peers: 0 })
  t.equal(refusals.length, 1)
  await testJoined(t, await openBare(t, app, '/relay'), await openBare(t, app, '/relay'))
})

t.test('an upgrade behind a finished answer is like any other', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay')
    app.get('/rest', async () => 'rest')
  })
  const client = await RawClient.dial(t, app)
  await client.send(requestText('/rest'))
  t.equal((await client.answer()).body, 'rest')
  await client.upgrade(t, '/relay')
  await testJoined(t, client, await openBare(t, app, '/relay'))
})

t.test('a client that announces a body and breaks the connection does no harm', async (t) => {
  const app = await startApp(t, (app) => { app.relay('/relay') })
  for (const headers of [{ 'Content-Length': '3' }, { 'Transfer-Encoding': 'chunked' }] as Array<Record<string, string>>) {
    for (let i = 0; i < 10; i++) {
      const client = await RawClient.dial(t, app)
      const refused = new Promise((resolve) => app.relayHub.once('refuse', resolve))
      await client.send(upgradeText('/relay', { headers }))
      await refused
      client.socket.resetAndDestroy()
    }
  }
  await openBare(t, app, '/relay')
  t.equal(app.relayHub.stats().refused['FST_RELAY_BODY'], 20)
})
