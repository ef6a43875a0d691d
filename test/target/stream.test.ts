import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type ListenOptions, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Mailbox } from '../helpers/mailbox.ts'
import { SeededRandom } from '../helpers/random.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, serverCertificate, startApp, testRefusal } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

/** A server behind the app; each connection it gets is a `RawClient` to talk through. */
async function startTarget (t: Test, listen: ListenOptions = { port: 0, host: '127.0.0.1' }, onConnection?: (socket: Socket) => void) {
  const connections = new Mailbox<RawClient>()
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket)
    onConnection?.(socket)
    connections.push(new RawClient(socket))
  })
  server.listen(listen)
  await once(server, 'listening')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  const address = server.address() as AddressInfo | string
  return { connections, server, target: typeof address === 'string' ? `unix:${address}` : `tcp://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}` }
}

function socketPath (t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'relay-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  return join(folder, 'target.sock')
}

t.test('a tunnel leads to its target', async (t) => {
  const listeners: Array<[string, (t: Test) => ListenOptions]> = [
    ['tcp over IPv4', () => ({ port: 0, host: '127.0.0.1' })],
    ['tcp over IPv6', () => ({ port: 0, host: '::1' })],
    ['unix', (t) => ({ path: socketPath(t) })]
  ]
  for (const [name, listen] of listeners) {
    await t.test(name, async (t) => {
      const { connections, target } = await startTarget(t, listen(t))
      const app = await startApp(t, (app) => app.relay('/relay', { target, identify: () => ({ id: 'a', context: 'c' }) }))
      const client = await openBare(t, app, '/relay', { body: 'early data' })
      const server = await connections.next()
      t.equal((await server.read(10)).toString(), 'early data')
      await server.send('answer')
      t.equal((await client.read(6)).toString(), 'answer')
      t.match(app.relayHub.peers(), [{ id: 'a', context: 'c', channel: { scope: '/relay', kind: 'target' }, bytesIn: 10, bytesOut: 6 }])
      const again = await openBare(t, app, '/relay')
      await again.send('x')
      t.equal((await (await connections.next()).read(1)).toString(), 'x', 'a second tunnel of the same id has a connection of its own')
      t.equal(app.relayHub.stats().peers, 2)
    })
  }
})

t.test('a server that speaks first is heard at once', async (t) => {
  const { target } = await startTarget(t, undefined, (socket) => socket.write('SSH-2.0-test\r\n'))
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const client = await openBare(t, app, '/relay')
  t.equal((await client.read(14)).toString(), 'SSH-2.0-test\r\n')
})

for (const tls of [false, true]) {
  const server = { https: tls ? serverCertificate() : null }
  t.test(`half-close goes through in each direction${tls ? ', over TLS' : ''}`, async (t) => {
    const { connections, target } = await startTarget(t)
    const app = await startApp(t, (app) => app.relay('/relay', { target }), { server })
    for (const first of ['client', 'target']) {
      const client = await openBare(t, app, '/relay', {}, { allowHalfOpen: true, tls })
      const behind = await connections.next()
      const [ending, other] = first === 'client' ? [client, behind] : [behind, client]
      const left = once(app.relayHub, 'detach')
      ending.socket.end('last words')
      t.equal((await other.readToEnd()).toString(), 'last words')
      await other.send('and still')
      other.socket.end(' an answer')
      t.equal((await ending.readToEnd()).toString(), 'and still an answer')
      const [, info] = await left
      t.match(info, { reason: 'ended' }, `${first} first`)
      t.same(await Promise.all([client.closed, behind.closed]), [undefined, undefined])
    }
  })
}

t.test('what is lost on one side is lost on the other, and never looks like an end', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const cases = [
    ['client', 'lost', 1],
    ['target', 'target-failed', 0]
  ] as const
  for (const [breaking, reason, other] of cases) {
    const sides = [await openBare(t, app, '/relay'), await connections.next()] as const
    const left = once(app.relayHub, 'detach')
    sides[1 - other]!.socket.resetAndDestroy()
    t.match((await left)[1], { reason })
    t.match(await sides[other]!.closed, { code: 'ECONNRESET' }, `${breaking} breaks`)
  }
})

t.test('a tunnel that is disconnected breaks off both sides', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay/:name', { target, identify: () => ({ id: 'a' }) }))
  const client = await openBare(t, app, '/relay/x')
  const behind = await connections.next()
  t.equal(app.relayHub.disconnect({ channel: 'x', id: 'a', kind: 'target' }), 1)
  t.match(await client.closed, { code: 'ECONNRESET' })
  t.match(await behind.closed, { code: 'ECONNRESET' })
  t.match(app.relayHub.stats(), { peers: 0, detached: { disconnected: 1 } })
})

t.test('closing the app ends the tunnels and their connections', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const client = await openBare(t, app, '/relay', {}, { allowHalfOpen: true })
  const behind = await connections.next()
  await app.close()
  await Promise.all([client.closed, behind.closed])
  t.match(app.relayHub.stats(), { peers: 0, detached: { shutdown: 1 } })
})

t.test('100 MB go through in both directions at once, with backpressure', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const client = await openBare(t, app, '/relay', {}, { allowHalfOpen: true })
  const behind = await connections.next()
  const random = new SeededRandom()
  const pump = async (from: RawClient, to: RawClient): Promise<void> => {
    const sent = createHash('sha256')
    const got = createHash('sha256')
    to.socket.removeAllListeners('data')
    to.socket.on('data', (chunk: Buffer) => { got.update(chunk) })
    const ended = once(to.socket, 'end')
    const block = random.bytes(1024 * 1024)
    for (let i = 0; i < 100; i++) {
      block.writeUInt32BE(i)
      sent.update(block)
      await from.send(Buffer.from(block))
    }
    from.socket.end()
    await ended
    t.equal(got.digest('hex'), sent.digest('hex'))
  }
  await Promise.all([pump(client, behind), pump(behind, client)])
})

t.test('a client that does not read holds the target back', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const client = await openBare(t, app, '/relay')
  client.socket.pause()
  const { socket } = await connections.next()
  const block = Buffer.alloc(1024 * 1024)
  // The kernel holds a few MB on each leg; far more than that must not find room.
  let isBlocked = false
  for (let i = 0; i < 64 && !isBlocked; i++) {
    socket.write(block)
    isBlocked = await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(socket.writableLength > 0), 500)
      if (socket.writableLength === 0) return resolve(false)
      socket.once('drain', () => {
        clearTimeout(timer)
        resolve(false)
      })
    })
  }
  t.ok(isBlocked)
  let read = 0
  client.socket.on('data', (chunk: Buffer) => { read += chunk.length })
  client.socket.resume()
  await once(socket, 'drain')
  t.ok(read > 0, 'and lets it go on when it reads')
})

t.test('a target that cannot be reached is a refusal before the 101', async (t) => {
  const { target, server } = await startTarget(t)
  server.close()
  await once(server, 'close')
  const errors: Array<{ err: { stack: string } }> = []
  const stream = { write: (line: string) => { errors.push(JSON.parse(line)) } }
  const app = await startApp(t, (app) => {
    app.relay('/refuses', { target })
    app.relay('/absent', { target: `unix:${socketPath(t)}` })
    app.relay('/nowhere', { target: 'tcp://name.invalid:1' })
  }, { server: { logger: { level: 'error', stream } } })
  for (const [path, code] of [['/refuses', 'ECONNREFUSED'], ['/absent', 'ENOENT'], ['/nowhere', /ENOTFOUND|EAI_AGAIN/]] as const) {
    const answer = await testRefusal(t, app, upgradeText(path), { statusCode: 502, code: 'FST_RELAY_TARGET_UNREACHABLE', message: 'The server behind this route cannot be reached' })
    t.notMatch(answer.body, /127\.0\.0\.1|sock|invalid/, 'the client does not learn where it is')
    t.match(errors.pop()!.err.stack, code, 'the log says why')
  }
})

t.test('a target that does not answer is a 504', async (t) => {
  // It listens and never accepts anybody: once its short queue is full, the system does not answer either.
  const script = `require('node:net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, function () {
    require('node:fs').writeSync(1, this.address().port + '\\n')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })`
  const deaf = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => deaf.kill('SIGKILL'))
  const [line] = await once(deaf.stdout, 'data')
  const port = Number(String(line))
  const queued = Array.from({ length: 5 }, () => connect(port, '127.0.0.1').on('error', () => {}))
  t.teardown(() => { for (const socket of queued) socket.destroy() })
  await once(queued[0]!, 'connect')
  const app = await startApp(t, (app) => app.relay('/relay', { target: `tcp://127.0.0.1:${port}` }), { relay: { handshakeTimeout: 2000 } })
  const sockets = (): number => process.getActiveResourcesInfo().filter((name) => name.startsWith('TCP')).length
  const before = sockets()
  await testRefusal(t, app, upgradeText('/relay'), { statusCode: 504, code: 'FST_RELAY_TARGET_TIMEOUT', message: /1000 ms/ })
  await until(() => sockets() <= before)
})

t.test('a client that leaves while its target is being connected leaves nothing behind', async (t) => {
  const { connections, target } = await startTarget(t)
  let chosen = (): void => {}
  let reached = (): void => {}
  const isReached = new Promise<void>((resolve) => { reached = resolve })
  const app = await startApp(t, (app) => app.relay('/relay', {
    target: async () => {
      reached()
      await new Promise<void>((resolve) => { chosen = resolve })
      return target
    }
  }))
  const client = await RawClient.dial(t, app)
  await client.send(upgradeText('/relay'))
  await isReached
  const refused = once(app.relayHub, 'refuse')
  client.socket.destroy()
  t.match(await refused, [{ statusCode: 499 }])
  chosen()
  const other = await RawClient.dial(t, app)
  await other.send(upgradeText('/relay'))
  await new Promise((resolve) => setImmediate(resolve))
  while (connections.all.length === 0) {
    chosen()
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.equal((await other.head()).statusCode, 101)
  t.equal(connections.all.length, 1, 'the one who left has no connection')
})

t.test('clients that leave at any moment leave no connection to the target behind', async (t) => {
  const open = new Set<Socket>()
  const { target } = await startTarget(t, undefined, (socket) => {
    open.add(socket)
    socket.on('end', () => socket.end()).on('close', () => open.delete(socket)).on('error', () => {})
  })
  let leave = (): void => {}
  const app = await startApp(t, (app) => app.relay('/relay', {
    target: () => {
      setImmediate(leave)
      // To be resolved: that takes a while.
      return target.replace('127.0.0.1', 'localhost')
    }
  }))
  for (let i = 0; i < 50; i++) {
    const client = await RawClient.dial(t, app)
    leave = () => client.socket.resetAndDestroy()
    await client.send(upgradeText('/relay'))
    await client.closed
  }
  await until(() => open.size === 0 && app.relayHub.stats().peers === 0 && (app.relayHub.stats().refused['FST_RELAY_CLIENT_GONE'] ?? 0) + app.relayHub.stats().attached === 50)
  t.ok(app.relayHub.stats().refused['FST_RELAY_CLIENT_GONE']! > 0)
})

t.test('the app chooses a target by the request', async (t) => {
  const a = await startTarget(t)
  const b = await startTarget(t)
  const targets: Record<string, unknown> = { a: a.target, b: b.target, none: undefined, wrong: 'http://x', udp: 'udp://127.0.0.1:9' }
  const lines: string[] = []
  const stream = { write: (line: string) => { lines.push(line) } }
  const app = await startApp(t, (app) => app.relay('/relay/:name', {
    target: async ({ params, headers }) => {
      if (headers['x-user'] === undefined) throw Object.assign(new Error('who are you?'), { statusCode: 403 })
      return targets[(params as { name: string }).name] as string
    }
  }), { server: { logger: { level: 'error', stream } } })
  const user = { headers: { 'X-User': 'u' } }
  for (const [name, { connections }] of [['a', a], ['b', b]] as const) {
    const client = await openBare(t, app, `/relay/${name}`, user)
    await client.send(name)
    t.equal((await (await connections.next()).read(1)).toString(), name)
  }
  await testRefusal(t, app, upgradeText('/relay/a'), { statusCode: 403 })
  for (const name of ['none', 'wrong']) {
    const { body } = await testRefusal(t, app, upgradeText(`/relay/${name}`, user), { statusCode: 500, code: 'FST_RELAY_TARGET' })
    t.notMatch(body, 'http://x')
  }
  t.match(lines.join(''), /target\(\) returned 'http:\/\/x'/, 'the log tells what it was')
  await testRefusal(t, app, upgradeText('/relay/udp', user), { statusCode: 400, code: 'FST_RELAY_FRAMING', message: /"raw".*wg, len16/ })
})

t.test('datagrams have no place in a stream', async (t) => {
  const { target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  for (const headers of [{ 'Spanza-Framing': 'wg, len16' }, { Upgrade: 'UoTLV/1' }]) {
    await testRefusal(t, app, upgradeText('/relay', { headers }), { statusCode: 400, code: 'FST_RELAY_FRAMING' })
  }
  await openBare(t, app, '/relay', { headers: { 'Spanza-Framing': 'wg, raw' } })
})

t.test('an option that cannot be is an error with its name and value', async (t) => {
  const wrong: Array<[object, RegExp]> = [
    [{ target: 'http://x' }, /target must be .*'http:\/\/x'/],
    [{ target: 7 }, /target/],
    [{ proxyProtocol: 1 }, /proxyProtocol/],
    [{ target: 'tcp://127.0.0.1:1', proxyProtocol: 3 }, /proxyProtocol must be 1 or 2.*3/],
    [{ target: 'udp://127.0.0.1:1', proxyProtocol: 1 }, /proxyProtocol/]
  ]
  for (const [options, message] of wrong) {
    await startApp(t, (app) => {
      t.throws(() => app.relay('/relay', options), { code: 'FST_RELAY_OPTION', message })
    })
  }
})

t.test('limits of peers hold for targets as well, also of those that come while a target is connected', async (t) => {
  const { target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }), { relay: { maxPeers: 2 } })
  const clients = await Promise.all(Array.from({ length: 6 }, async () => {
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    return client
  }))
  const statuses = await Promise.all(clients.map(async (client) => (await client.answer()).statusCode))
  t.same(statuses.sort(), [101, 101, 503, 503, 503, 503])
  t.equal(app.relayHub.stats().peers, 2)
})

t.test('a target that asks for it is told the client\'s address by a PROXY header, before anything else', async (t) => {
  const { connections, target } = await startTarget(t)
  const unix = await startTarget(t, { path: socketPath(t) })
  const app = await startApp(t, (app) => {
    app.relay('/v1', { target, proxyProtocol: 1 })
    app.relay('/v2', { target: unix.target, proxyProtocol: 2 })
    app.relay('/chosen', { target: () => target, proxyProtocol: 1 })
    app.relay('/udp', { target: () => 'udp://127.0.0.1:9', proxyProtocol: 1 })
  }, { server: { trustProxy: '127.0.0.1' } })
  const { port } = app.server.address() as AddressInfo
  const open = async (path: string, forwarded?: string): Promise<RawClient> =>
    await openBare(t, app, path, { body: 'early', ...(forwarded === undefined ? {} : { headers: { 'X-Forwarded-For': forwarded } }) })

  const direct = await open('/v1')
  const expected = `PROXY TCP4 127.0.0.1 127.0.0.1 ${direct.socket.localPort} ${port}\r\nearly`
  t.equal(String(await (await connections.next()).read(expected.length)), expected)

  await open('/v1', '203.0.113.9')
  const forwarded = `PROXY TCP4 203.0.113.9 127.0.0.1 0 ${port}\r\nearly`
  t.equal(String(await (await connections.next()).read(forwarded.length)), forwarded, 'a port belongs to the address it was seen with')

  await open('/chosen', '2001:db8::9')
  const mixed = `PROXY TCP6 2001:db8::9 ::ffff:7f00:1 0 ${port}\r\nearly`
  t.equal(String(await (await connections.next()).read(mixed.length)), mixed)

  await open('/v2', '203.0.113.9')
  const v2 = await (await unix.connections.next()).read(28 + 5)
  t.equal(v2.toString('hex', 0, 20), '0d0a0d0a000d0a515549540a2111000ccb007109')
  t.equal(v2.toString('latin1', 28), 'early')

  await testRefusal(t, app, upgradeText('/udp', { headers: { 'Spanza-Framing': 'wg' } }), { statusCode: 500, code: 'FST_RELAY_TARGET' })
})

t.test('a tunnel on which nothing goes either way is closed, if the app says so', async (t) => {
  const { target } = await startTarget(t, undefined, (socket) => socket.on('data', (chunk) => socket.write(chunk)))
  const app = await startApp(t, (app) => app.relay('/relay', { target }), { relay: { idleTimeout: 300 } })
  const client = await openBare(t, app, '/relay')
  const left = once(app.relayHub, 'detach')
  // For longer than the timeout, something goes.
  for (let i = 0; i < 8; i++) {
    await client.send('x')
    await client.read(1)
    await new Promise((resolve) => setTimeout(resolve, 60))
  }
  t.equal(app.relayHub.stats().peers, 1)
  t.match((await left)[1], { reason: 'idle', text: 'nothing received for 300 ms' })
  await client.closed
})

t.test('what the target alone sends keeps a tunnel alive, too', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }), { relay: { idleTimeout: 300 } })
  const client = await openBare(t, app, '/relay')
  const behind = await connections.next()
  for (let i = 0; i < 8; i++) {
    await behind.send('x')
    await client.read(1)
    await new Promise((resolve) => setTimeout(resolve, 60))
  }
  t.equal(app.relayHub.stats().peers, 1)
})

t.test('a tunnel of which one direction has ended lives on for a limited time', async (t) => {
  const { connections, target } = await startTarget(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }), { relay: { halfClosedTimeout: 100 } })
  for (const first of ['client', 'target']) {
    const client = await openBare(t, app, '/relay', {}, { allowHalfOpen: true })
    const behind = await connections.next()
    const left = once(app.relayHub, 'detach')
    const ending = first === 'client' ? client : behind
    ending.socket.end()
    t.match((await left)[1], { reason: 'idle', text: 'half-open for 100 ms' }, first)
    t.match(await ending.closed, { code: 'ECONNRESET' })
  }
})
