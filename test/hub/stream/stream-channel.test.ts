import { randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { detached, startRelay } from '../../helpers/relay.ts'
import { askForTunnel, openTunnel, until, type Tunnel, type TunnelOptions } from '../../helpers/tunnel.ts'

async function open (t: Test, app: FastifyInstance, options: TunnelOptions = {}): Promise<Tunnel> {
  return await openTunnel(t, app, { framing: 'raw', ...options })
}

/** Two spliced tunnels with the ids a and b. */
async function openPair (t: Test, app: FastifyInstance, options: TunnelOptions = {}): Promise<[Tunnel, Tunnel]> {
  return [await open(t, app, { id: 'a', ...options }), await open(t, app, { id: 'b', ...options })]
}

/** Waits until a tunnel has received `length` bytes. */
async function received (tunnel: Tunnel, length: number): Promise<void> {
  let count = tunnel.bytes.length
  tunnel.socket.on('data', (chunk: Buffer) => { count += chunk.length })
  await until(() => count >= length)
}

function peer (app: FastifyInstance, id: string) {
  return app.relayHub.peers().find((each) => each.id === id)!
}

t.test('two tunnels are joined, and what the first has sent while it waited comes first', async (t) => {
  const app = await startRelay(t)
  const a = await open(t, app, { id: 'a' })
  a.write('early ')
  await until(() => peer(app, 'a').bytesIn === 6)
  const b = await open(t, app, { id: 'b' })
  a.write('late')
  b.write('hello')
  await received(b, 10)
  await received(a, 5)
  t.equal(b.bytes.toString(), 'early late')
  t.equal(a.bytes.toString(), 'hello')
  t.match(peer(app, 'a'), { framing: 'raw', bytesIn: 10, bytesOut: 5, datagramsIn: 0, drops: 0 })
  t.match(peer(app, 'b'), { bytesIn: 5, bytesOut: 10 })
  t.match(app.relayHub.stats(), { bytesIn: 15, bytesOut: 15, peers: 2 })
})

for (const [first, second] of [[0, 1], [1, 0]] as const) {
  t.test(`a tunnel that ${first === 0 ? 'came first' : 'came second'} may end its half and still receive`, async (t) => {
    const app = await startRelay(t)
    const pair = await openPair(t, app)
    const [early, late] = [pair[first], pair[second]]
    early.socket.end('question')
    await late.ended
    t.equal(late.bytes.toString(), 'question')
    late.write('one ')
    await received(early, 4)
    const leaving = [detached(app, 'a'), detached(app, 'b')]
    late.socket.end('two')
    await early.ended
    t.equal(early.bytes.toString(), 'one two')
    for (const info of await Promise.all(leaving)) t.match(info, { reason: 'ended' })
    t.same(app.relayHub.channels(), [])
  })
}

t.test('a fast sender is held back by a slow receiver', async (t) => {
  const app = await startRelay(t)
  const a = await open(t, app, { id: 'a' })
  const b = await open(t, app, { id: 'b', reads: false })
  const size = 64 * 1024 * 1024
  const bytes = randomBytes(size)
  a.socket.end(bytes)
  // Another pair moves as much meanwhile: the relay has had all the time it needs.
  const [c, d] = await openPair(t, app, { path: '/relay/other' })
  c.socket.end(bytes)
  await d.ended
  t.ok(d.bytes.equals(bytes))
  t.ok(peer(app, 'a').bytesIn < size / 2, `${peer(app, 'a').bytesIn} bytes were read`)
  b.read()
  await b.ended
  t.ok(b.bytes.equals(bytes))
})

t.test('a tunnel that waits is read into a small buffer, and nothing gets lost', async (t) => {
  const app = await startRelay(t)
  const a = await open(t, app, { id: 'a' })
  const bytes = randomBytes(16 * 1024 * 1024)
  a.socket.end(bytes)
  const [c, d] = await openPair(t, app, { path: '/relay/other' })
  c.socket.end(bytes)
  await d.ended
  // The last chunk may be as large as a socket's chunks are.
  t.ok(peer(app, 'a').bytesIn >= 64 * 1024 && peer(app, 'a').bytesIn <= 128 * 1024, `${peer(app, 'a').bytesIn} bytes`)
  const b = await open(t, app, { id: 'b' })
  await b.ended
  t.ok(b.bytes.equals(bytes))
})

t.test('a reset is carried over as one', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openPair(t, app)
  const leaving = Promise.all([detached(app, 'a'), detached(app, 'b')])
  a.write('beginning')
  await received(b, 9)
  a.socket.resetAndDestroy()
  await b.closed
  t.match(b.error, { code: 'ECONNRESET' })
  const [ofA, ofB] = await leaving
  t.match(ofA, { reason: 'lost', text: /ECONNRESET/ })
  t.match(ofB, { reason: 'partner-lost', text: 'the other tunnel broke' })
})

t.test('a third tunnel is refused, until the two have left', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openPair(t, app)
  t.match(await askForTunnel(t, app, { framing: 'raw', id: 'c' }), { statusCode: 409, code: 'FST_RELAY_CHANNEL_PAIRED' })
  a.write('still there')
  await received(b, 11)
  const left = detached(app, 'b')
  a.socket.end()
  b.socket.end()
  await left
  await until(() => app.relayHub.peers().length === 0)
  await openPair(t, app)
})

const waysToLeave: Record<string, [(tunnel: Tunnel) => void, string]> = {
  'with a FIN behind ten bytes': [(tunnel) => tunnel.socket.end('0123456789'), 'ended'],
  'with a reset': [(tunnel) => tunnel.socket.resetAndDestroy(), 'lost']
}

for (const [way, [leave, reason]] of Object.entries(waysToLeave)) {
  t.test(`a tunnel that leaves ${way} while it waits makes room`, async (t) => {
    const app = await startRelay(t)
    const first = await open(t, app, { id: 'first' })
    const left = detached(app, 'first')
    leave(first)
    t.match(await left, { reason })
    const [a, b] = await openPair(t, app)
    a.socket.end('fresh')
    await b.ended
    t.equal(b.bytes.toString(), 'fresh')
  })
}

t.test('a tunnel does not wait for ever, also one that sends', async (t) => {
  const app = await startRelay(t, { pairTimeout: 100 })
  const a = await open(t, app, { id: 'a' })
  const leaving = detached(app, 'a')
  a.write(Buffer.alloc(1_000_000))
  t.match(await leaving, { reason: 'pair-timeout', text: 'no second tunnel connected within 100 ms' })
  await a.ended
  t.equal(a.bytes.length, 0)
  const [b, c] = await openPair(t, app, { path: '/relay/other' })
  await until(() => Date.now() - peer(app, 'b').attachedAt.getTime() > 200)
  b.write('still there')
  await received(c, 11)
})

t.test('a pair of which one direction has ended may live on for halfClosedTimeout', async (t) => {
  const app = await startRelay(t, { halfClosedTimeout: 100 })
  const [a, b] = await openPair(t, app)
  const leaving = Promise.all([detached(app, 'a'), detached(app, 'b')])
  a.socket.end('question')
  const [ofA, ofB] = await leaving
  t.match(ofA, { reason: 'idle', text: 'half-open for 100 ms' })
  t.match(ofB, { reason: 'partner-lost' })
  await a.closed
  t.match(a.error, { code: 'ECONNRESET' }, 'what is cut short does not look whole')
  t.equal(b.bytes.toString(), 'question')
})

t.test('with idleTimeout a silent pair is closed', async (t) => {
  const app = await startRelay(t, { idleTimeout: 100 })
  await openPair(t, app)
  const infos = await Promise.all([detached(app, 'a'), detached(app, 'b')])
  t.same(infos.map(({ reason }) => reason).sort(), ['idle', 'partner-lost'])
})

t.test('with idleTimeout a pair lives as long as one direction does', async (t) => {
  const app = await startRelay(t, { idleTimeout: 150 })
  const [a, b] = await openPair(t, app)
  const timer = setInterval(() => a.write('x'), 5)
  t.teardown(() => clearInterval(timer))
  await until(() => Date.now() - peer(app, 'b').attachedAt.getTime() > 600)
  t.equal(app.relayHub.peers().length, 2)
  b.write('back')
  await received(a, 4)
})

t.test('the same id again replaces a tunnel that waits', async (t) => {
  const app = await startRelay(t)
  const older = await open(t, app, { id: 'a' })
  older.write('of the older')
  const leaving = detached(app, 'a')
  const a = await open(t, app, { id: 'a' })
  t.match(await leaving, { reason: 'replaced' })
  await older.ended
  const b = await open(t, app, { id: 'b' })
  a.write('of the newer')
  await received(b, 12)
  t.equal(b.bytes.toString(), 'of the newer')
})

t.test('the same id again breaks a pair, and the newcomer waits', async (t) => {
  const app = await startRelay(t)
  const [older, partner] = await openPair(t, app)
  const leaving = Promise.all([detached(app, 'a'), detached(app, 'b')])
  const a = await open(t, app, { id: 'a' })
  const [ofA, ofB] = await leaving
  t.match(ofA, { reason: 'replaced' })
  t.match(ofB, { reason: 'partner-lost', text: 'the other tunnel was closed' })
  await Promise.all([older.closed, partner.closed])
  const b = await open(t, app, { id: 'b' })
  a.write('again')
  await received(b, 5)
})

t.test('a tunnel is not replaced too often', async (t) => {
  const app = await startRelay(t)
  for (let i = 0; i <= 5; i++) await open(t, app, { id: 'a' })
  t.match(await askForTunnel(t, app, { framing: 'raw', id: 'a' }), { statusCode: 429, code: 'FST_RELAY_REPLACED_TOO_OFTEN' })
  t.equal(app.relayHub.peers().length, 1)
})

t.test('a stream that the relay cuts short does not look as if it had ended', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openPair(t, app)
  a.write('beginning')
  await received(b, 9)
  t.equal(app.relayHub.disconnect({ channel: 'home', id: 'a' }), 1)
  await Promise.all([a.closed, b.closed])
  for (const tunnel of [a, b]) t.match(tunnel.error, { code: 'ECONNRESET' })
})

t.test('a server that closes breaks its pairs and ends what waits', async (t) => {
  const app = await startRelay(t)
  const [a, b] = await openPair(t, app)
  const waiting = await open(t, app, { id: 'c', path: '/relay/other' })
  const leaving = Promise.all(['a', 'b', 'c'].map((id) => detached(app, id)))
  waiting.ended.then(() => waiting.socket.end())
  await app.close()
  for (const info of await leaving) t.match(info, { reason: 'shutdown' })
  await Promise.all([a.closed, b.closed, waiting.closed])
  t.equal(waiting.error, undefined)
})

t.test('a tunnel that still delivers what its partner has sent keeps nobody out', async (t) => {
  const app = await startRelay(t)
  const atServer: Socket[] = []
  app.server.on('connection', (socket) => atServer.push(socket))
  const a = await open(t, app, { id: 'a' })
  const b = await open(t, app, { id: 'b', reads: false })
  b.socket.end()
  await a.ended
  // As much as the sockets between take, and no more: a is read to its end, b is not done.
  while (atServer[1]!.writableLength === 0) {
    await new Promise((resolve) => a.socket.write(Buffer.alloc(4096), resolve))
    await new Promise((resolve) => setImmediate(resolve))
  }
  const left = detached(app, 'a')
  a.socket.end()
  t.match(await left, { reason: 'ended' })
  t.match(app.relayHub.peers(), [{ id: 'b' }])
  const c = await open(t, app, { id: 'c' })
  const d = await open(t, app, { id: 'd' })
  c.write('hello')
  await received(d, 5)
  t.equal(d.bytes.toString(), 'hello')
})
