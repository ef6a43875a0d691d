import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'

// Bare tunnels, from clients that know nothing but node:net and the handshake.

t.setTimeout(120_000)

/** A relay whose channels are named by the last part of the path. */
async function startRelay (t: Test) {
  const app = Fastify()
  await app.register(spanzaRelay)
  app.relay('/raw/:channel', {})
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.teardown(() => app.close())
  return app
}

type App = Awaited<ReturnType<typeof startRelay>>

/** Sends the handshake and, in the same write, what is to follow it. */
function dial (t: Test, app: App, channel: string, early: Buffer = Buffer.alloc(0)): Socket {
  const { port } = app.server.address() as AddressInfo
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
  t.teardown(() => socket.destroy())
  const header = `GET /raw/${channel} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n\r\n`
  socket.write(Buffer.concat([Buffer.from(header), early]))
  return socket
}

/** Reads the relay's answer off a socket, and leaves what follows it unread. */
async function answer (socket: Socket): Promise<string> {
  let text = ''
  while (!text.includes('\r\n\r\n')) {
    const chunk: Buffer | null = socket.read()
    if (chunk === null) {
      await once(socket, 'readable')
      continue
    }
    text += chunk.toString('latin1')
  }
  const end = text.indexOf('\r\n\r\n') + 4
  if (text.length > end) socket.unshift(Buffer.from(text.slice(end), 'latin1'))
  return text.slice(0, end)
}

/** A tunnel behind its 101. */
async function open (t: Test, app: App, channel: string, early?: Buffer): Promise<Socket> {
  const socket = dial(t, app, channel, early)
  t.match(await answer(socket), /^HTTP\/1\.1 101 Switching Protocols\r\n/)
  return socket
}

/** Two tunnels in one channel. */
async function openPair (t: Test, app: App, channel: string): Promise<[Socket, Socket]> {
  const first = await open(t, app, channel)
  return [first, await open(t, app, channel)]
}

async function readAll (socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) chunks.push(chunk)
  return Buffer.concat(chunks)
}

/** Sends `size` bytes that never repeat and ends; gives back their checksum. */
async function sendMuch (socket: Socket, size: number): Promise<string> {
  const hash = createHash('sha256')
  const pool = randomBytes(1 << 20)
  for (let sent = 0; sent < size;) {
    // Sizes and positions that fit no buffer's, with a counter, so that nothing lost or swapped goes unseen.
    const from = sent % 4093
    const chunk = Buffer.from(pool.subarray(from, from + Math.min(size - sent, 99_991)))
    if (chunk.length >= 6) chunk.writeUIntBE(sent, 0, 6)
    hash.update(chunk)
    sent += chunk.length
    if (!socket.write(chunk)) await once(socket, 'drain')
  }
  socket.end()
  return hash.digest('hex')
}

async function receiveMuch (socket: Socket): Promise<{ size: number, checksum: string }> {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    size += chunk.length
    hash.update(chunk)
  }
  return { size, checksum: hash.digest('hex') }
}

t.test('200 MB arrive byte for byte in both directions at once', async (t) => {
  t.setTimeout(100_000)
  const size = 200_000_000
  const [a, b] = await openPair(t, await startRelay(t), 'much')
  const [sentByA, sentByB, gotByA, gotByB] = await Promise.all([
    sendMuch(a, size), sendMuch(b, size), receiveMuch(a), receiveMuch(b)
  ])
  t.same(gotByB, { size, checksum: sentByA })
  t.same(gotByA, { size, checksum: sentByB })
})

for (const size of [1, 20_000, 300_000]) {
  t.test(`${size} bytes right behind the request are the first of the tunnel`, async (t) => {
    const app = await startRelay(t)
    const early = randomBytes(size)
    const late = randomBytes(1000)
    const first = await open(t, app, 'early', early)
    const second = await open(t, app, 'early', early)
    first.end(late)
    second.end(late)
    const [toFirst, toSecond] = await Promise.all([readAll(first), readAll(second)])
    t.ok(toSecond.equals(Buffer.concat([early, late])), 'those of the one that waited')
    t.ok(toFirst.equals(Buffer.concat([early, late])), 'those of the one that came second')
  })
}

t.test('a side that has ended its half still receives', async (t) => {
  const [a, b] = await openPair(t, await startRelay(t), 'half')
  a.end('question')
  t.equal((await readAll(b)).toString(), 'question')
  b.write('first half of the answer, ')
  t.equal(String((await once(a, 'data'))[0]), 'first half of the answer, ')
  a.pause()
  b.end('second half')
  t.equal((await readAll(a)).toString(), 'second half')
})

t.test('a side that breaks breaks the other', async (t) => {
  const [a, b] = await openPair(t, await startRelay(t), 'broken')
  const closed = new Promise((resolve) => b.on('close', resolve))
  b.on('error', () => {}) // it may see the reset as an error or as an end
  b.resume()
  a.resetAndDestroy()
  await closed
})

const waysToLeave: Record<string, (socket: Socket) => void> = {
  'by closing': (socket) => socket.destroy(),
  'by a reset': (socket) => socket.resetAndDestroy()
}

for (const [way, leave] of Object.entries(waysToLeave)) {
  t.test(`one that leaves ${way} while it waits makes room, also behind bytes nobody has read`, async (t) => {
    const app = await startRelay(t)
    const gone = await open(t, app, 'waiting', randomBytes(10))
    t.equal(app.relayHub.peers().length, 1)
    const detached = once(app.relayHub, 'detach')
    leave(gone)
    await detached
    t.same(app.relayHub.peers(), [])

    const [a, b] = await openPair(t, app, 'waiting')
    a.end('to the next one')
    t.equal((await readAll(b)).toString(), 'to the next one', 'and not to the one that left')
    b.end()
  })
}
