import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { WebSocket } from 'ws'
import { Mailbox } from '../../helpers/mailbox.ts'
import { detached, startRelay } from '../../helpers/relay.ts'
import { openTunnel, until } from '../../helpers/tunnel.ts'
import { transportData } from '../../helpers/wireguard-messages.ts'
import { openWebSocket } from '../../helpers/websocket.ts'

interface Peer {
  socket: WebSocket
  messages: Mailbox<Buffer>
  closed: Promise<{ code: number, reason: string }>
}

async function openPeer (t: Test, app: FastifyInstance, id: string): Promise<Peer> {
  const socket = await openWebSocket(t, app, '/relay/a', ['spanza.v1'], { headers: { 'x-id': id } })
  const messages = new Mailbox<Buffer>()
  socket.on('message', (message) => messages.push(message as Buffer))
  return { socket, messages, closed: once(socket, 'close').then(([code, reason]) => ({ code, reason: String(reason) })) }
}

/** What ws speaks on. */
function socketOf ({ socket }: Peer): Socket {
  return (socket as unknown as { _socket: Socket })._socket
}

for (const framing of ['wg', 'len16'] as const) {
  t.test(`a WebSocket and a tunnel in ${framing} exchange datagrams`, async (t) => {
    const app = await startRelay(t)
    const browser = await openPeer(t, app, 'browser')
    const tunnel = await openTunnel(t, app, { path: '/relay/a', framing, id: 'tunnel' })
    for (const datagram of [Buffer.from('x'), transportData(7, 32), transportData(7, 1420), Buffer.from('01000000', 'hex'), Buffer.alloc(2048, 1)]) {
      browser.socket.send(datagram)
      t.same(await tunnel.datagrams.next(), datagram)
      tunnel.send(datagram)
      t.same(await browser.messages.next(), datagram)
    }
    t.match(app.relayHub.peers().find(({ id }) => id === 'browser'), { framing: 'websocket', protocol: 'websocket', httpVersion: '1.1', datagramsIn: 5, datagramsOut: 5 })
  })
}

t.test('datagrams that come in one chunk leave in one, in their order', async (t) => {
  const app = await startRelay(t)
  const [from, to] = [await openPeer(t, app, 'from'), await openPeer(t, app, 'to')]
  const chunks: number[] = []
  socketOf(to).on('data', (chunk: Buffer) => chunks.push(chunk.length))
  socketOf(from).cork()
  for (let i = 0; i < 200; i++) from.socket.send(Buffer.from(`datagram ${i}`))
  socketOf(from).uncork()
  for (let i = 0; i < 200; i++) t.equal(String(await to.messages.next()), `datagram ${i}`)
  t.ok(chunks.length < 20, `${chunks.length} chunks`)
})

t.test('what a message may not be', async (t) => {
  const rows: Array<[string, string | Buffer, { code: number, reason: string | RegExp }]> = [
    ['a text', 'text', { code: 1003, reason: 'a text message' }],
    ['more than 65535 bytes', Buffer.alloc(65536), { code: 1009, reason: '' }]
  ]
  for (const [what, message, expected] of rows) {
    await t.test(what, async (t) => {
      const app = await startRelay(t)
      const peer = await openPeer(t, app, 'a')
      const left = detached(app, 'a')
      peer.socket.send(message)
      t.match(await peer.closed, expected)
      t.match(await left, { reason: 'protocol-error' })
    })
  }
})

t.test('messages that are dropped are counted, and the tunnel lives', async (t) => {
  const app = await startRelay(t, { maxPacketSize: 1000 })
  const [from, to] = [await openPeer(t, app, 'from'), await openPeer(t, app, 'to')]
  from.socket.send(Buffer.alloc(0))
  from.socket.send(Buffer.alloc(1001))
  from.socket.send(Buffer.alloc(65535))
  from.socket.send(Buffer.alloc(1000, 7))
  t.same(await to.messages.next(), Buffer.alloc(1000, 7))
  t.match(app.relayHub.stats(), { datagramsIn: 4, datagramsOut: 1, drops: { empty: 1, 'too-large': 2 } })
})

t.test('a slow receiver loses the oldest data, and slows nobody', async (t) => {
  const app = await startRelay(t)
  const [from, slow] = [await openPeer(t, app, 'from'), await openPeer(t, app, 'slow')]
  slow.socket.pause()
  let sent = 0
  while (app.relayHub.stats().drops['queue-full'] < 100) {
    for (let i = 0; i < 100; i++) {
      const datagram = Buffer.alloc(1400)
      datagram.writeUInt32BE(++sent)
      from.socket.send(datagram)
    }
    await until(() => app.relayHub.stats().datagramsIn >= sent)
  }
  const dropped = app.relayHub.stats().drops['queue-full']
  slow.socket.resume()
  await until(() => slow.messages.all.length === sent - dropped)
  const numbers = slow.messages.all.map((message) => message.readUInt32BE())
  t.same(numbers, [...numbers].sort((a, b) => a - b), 'in order')
  t.equal(numbers.at(-1), sent, 'the newest is there')
})

t.test('a client that reads nothing is closed after writeTimeout', async (t) => {
  const app = await startRelay(t, { writeTimeout: 200 })
  const [from, slow] = [await openPeer(t, app, 'from'), await openPeer(t, app, 'slow')]
  slow.socket.pause()
  const left = detached(app, 'slow')
  const flood = setInterval(() => { for (let i = 0; i < 500; i++) from.socket.send(Buffer.alloc(1400)) }, 5)
  t.teardown(() => clearInterval(flood))
  t.match(await left, { reason: 'write-deadline' })
})

t.test('an idle WebSocket is pinged, and lives as long as it answers', async (t) => {
  const app = await startRelay(t, { keepaliveInterval: 50, keepaliveTimeout: 200 })
  const peer = await openPeer(t, app, 'a')
  for (let i = 0; i < 8; i++) await once(peer.socket, 'ping')
  t.equal(app.relayHub.stats().peers, 1)
  const left = detached(app, 'a')
  peer.socket.pause()
  t.match(await left, { reason: 'idle' })
  peer.socket.resume()
  t.match(await peer.closed, { code: 4004, reason: 'nothing received for 200 ms' })
})

t.test('why the relay closes is told by code and reason', async (t) => {
  const app = await startRelay(t)
  const [older, other] = [await openPeer(t, app, 'a'), await openPeer(t, app, 'b')]
  const newer = await openPeer(t, app, 'a')
  t.match(await older.closed, { code: 4003, reason: 'another tunnel has the same identity now' })
  app.relayHub.disconnect({ channel: 'a', id: 'b' }, `enough${'\u{1f600}'.repeat(100)}`)
  t.match(await other.closed, { code: 4006, reason: `enough${'\u{1f600}'.repeat(29)}` }, 'a reason of 123 bytes at most, in whole characters')
  await app.close()
  t.match(await newer.closed, { code: 1001, reason: 'the relay is shutting down' })
})

t.test('a client that closes has left at once, and gets its Close frame back', async (t) => {
  const app = await startRelay(t)
  const peer = await openPeer(t, app, 'a')
  const left = detached(app, 'a')
  peer.socket.close(4711, 'bye')
  t.match(await left, { reason: 'ended', text: 'the client closed its WebSocket' })
  t.match(await peer.closed, { code: 4711 })
})

t.test('a client whose connection breaks is lost', async (t) => {
  const app = await startRelay(t)
  for (const how of ['end', 'destroy', 'resetAndDestroy'] as const) {
    const peer = await openPeer(t, app, how)
    const left = detached(app, how)
    socketOf(peer)[how]()
    t.match(await left, { reason: 'lost' }, how)
  }
})

t.test('who sends more pings than it reads pongs is closed', async (t) => {
  const app = await startRelay(t)
  const peer = await openPeer(t, app, 'a')
  const left = detached(app, 'a')
  socketOf(peer).pause()
  const ping = Buffer.concat([Buffer.from([0x89, 0xfd, 0, 0, 0, 0]), Buffer.alloc(125)])
  socketOf(peer).write(Buffer.concat(Array.from({ length: 500 }, () => ping)))
  t.match(await left, { reason: 'limit', text: 'the client sent more pings than can be answered at once' })
})
