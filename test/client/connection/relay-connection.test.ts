import { once } from 'node:events'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { connect, type ConnectionEnd, type ConnectionNotice, type ConnectOptions, type RelayConnection } from '../../../lib/client/index.ts'
import { closeReasons } from '../../../lib/tunnel/close-reasons.ts'
import { len16 } from '../../../lib/framing/len16.ts'
import { notices as codes } from '../../../lib/framing/notices.ts'
import { CLOSING, NOTICE, PING, PONG, readClosing, wg } from '../../../lib/framing/wg.ts'
import { assortedDatagrams, wireguardMessage } from '../../helpers/datagrams.ts'
import { fakeRelay, frames, SWITCHING, type FakeRelayOptions, type FakeTunnel } from '../../helpers/fake-relay.ts'
import { Mailbox } from '../../helpers/mailbox.ts'

interface Pair {
  connection: RelayConnection
  tunnel: FakeTunnel
  /** What the connection received. */
  messages: Mailbox<Buffer>
  end: Promise<ConnectionEnd>
}

/** A connection and the relay's end of it. */
async function pair (t: Test, options: ConnectOptions = {}, relayOptions: FakeRelayOptions = {}): Promise<Pair> {
  const relay = await fakeRelay(t, relayOptions)
  const connection = await connect(relay.url, options)
  t.teardown(() => connection.close())
  const messages = new Mailbox<Buffer>()
  connection.on('message', (datagram) => messages.push(datagram))
  const end = new Promise<ConnectionEnd>((resolve) => { connection.on('close', resolve) })
  return { connection, tunnel: await relay.tunnels.next(), messages, end }
}

for (const framing of [wg, len16]) {
  t.test(`${framing.name}: datagrams of every kind and size travel both ways unchanged`, async (t) => {
    const { connection, tunnel, messages } = await pair(t, { framings: [framing.name] })
    const datagrams = assortedDatagrams()
    for (const datagram of datagrams) t.equal(connection.send(datagram), true)
    t.same(await tunnel.datagrams.take(datagrams.length), datagrams)
    tunnel.send(...datagrams)
    t.same(await messages.take(datagrams.length), datagrams)
    const bytes = datagrams.reduce((sum, { length }) => sum + length, 0)
    t.match(connection.stats, { datagramsOut: datagrams.length, datagramsIn: datagrams.length, bytesOut: bytes, bytesIn: bytes })
  })

  t.test(`${framing.name}: datagrams are found however the bytes are cut`, async (t) => {
    const { tunnel, messages } = await pair(t, { framings: [framing.name] })
    const datagrams = [wireguardMessage(1), wireguardMessage(4, 40), Buffer.from('x'), wireguardMessage(4, 96)]
    const bytes = frames(framing, datagrams)
    for (const size of [1, 3, 7, 50]) {
      for (let at = 0; at < bytes.length; at += size) {
        tunnel.socket.write(bytes.subarray(at, at + size))
        await new Promise((resolve) => setImmediate(resolve))
      }
      t.same(await messages.take(datagrams.length), datagrams)
    }
  })
}

t.test('datagrams sent in one turn leave in one write, and the buffers can be used again', async (t) => {
  const { connection, tunnel } = await pair(t)
  const buffer = Buffer.alloc(100)
  for (let i = 0; i < 50; i++) connection.send(buffer.fill(i))
  const received = await tunnel.datagrams.take(50)
  t.ok(received.every((datagram, i) => datagram.equals(Buffer.alloc(100, i))))
  t.equal(tunnel.chunks.length, 1)
  connection.send(Buffer.from('alone'))
  t.equal(String(await tunnel.datagrams.next()), 'alone', 'and one alone does not wait for others')
})

t.test('memory handed to the tunnel is not written to again, nor is what waits shared with the caller', async (t) => {
  // A transport that keeps what it is given and is slow to say that there is room.
  const held: Buffer[] = []
  let release = () => {}
  const transport = new Duplex({
    read () {},
    write (chunk, _encoding, callback) {
      if (!this.readableDidRead) this.push(`${SWITCHING}Spanza-Framing: len16\r\n\r\n`)
      else held.push(chunk)
      if (held.length < 3) callback()
      else release = callback
    }
  })
  const connection = await connect('http://relay.example.com/', { createConnection: () => transport })
  t.teardown(() => transport.destroy())
  const buffer = Buffer.alloc(60_000)
  for (let turn = 0; turn < 6; turn++) {
    connection.send(buffer.fill(turn))
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.equal(held.length, 3, 'the others wait')
  const all = 6 * (2 + buffer.length)
  while (Buffer.concat(held).length < all) {
    release()
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.same(Buffer.concat(held), frames(len16, Array.from({ length: 6 }, (_, turn) => Buffer.alloc(60_000, turn))))
})

t.test('many large datagrams in one turn arrive, however much it is', async (t) => {
  const { connection, tunnel } = await pair(t)
  const datagrams = Array.from({ length: 100 }, (_, i) => Buffer.alloc(1400, i))
  const sent = datagrams.filter((datagram) => connection.send(datagram))
  t.equal(sent.length, 100)
  t.same(await tunnel.datagrams.take(100), datagrams)
})

t.test('what cannot be sent is dropped and counted by its reason', async (t) => {
  const { connection, tunnel, end } = await pair(t, {}, { maxPacket: 1000 })
  t.equal(connection.send(Buffer.alloc(0)), false)
  t.equal(connection.send(Buffer.alloc(1001)), false)
  t.equal(connection.send(Buffer.alloc(1000)), true)
  t.equal((await tunnel.datagrams.next()).length, 1000)
  connection.close()
  t.equal(connection.send(Buffer.alloc(1)), false)
  await end
  t.match(connection.stats, { datagramsOut: 1, bytesOut: 1000, drops: { empty: 1, 'too-large': 1, closed: 1 } })
})

t.test('received datagrams above maxPacketSize are skipped and counted', async (t) => {
  const { connection, tunnel, messages } = await pair(t, { maxPacketSize: 100 })
  tunnel.send(Buffer.alloc(101), Buffer.alloc(100))
  t.equal((await messages.next()).length, 100)
  t.equal(connection.stats.drops['received-too-large'], 1)
})

t.test('datagrams that nobody listens to are counted', async (t) => {
  const relay = await fakeRelay(t)
  const connection = await connect(relay.url)
  t.teardown(() => connection.close())
  const tunnel = await relay.tunnels.next()
  tunnel.send(Buffer.from('hello'))
  tunnel.socket.write(wg.keepalive())
  await tunnel.controls.next()
  t.equal(connection.stats.drops['no-listener'], 1)
})

t.test('a relay that does not read: a bounded queue, handshakes first, and all is counted', async (t) => {
  const { connection, tunnel } = await pair(t, { framings: ['len16'] })
  tunnel.socket.pause()
  const data = (mark: number) => {
    const datagram = Buffer.alloc(1400)
    datagram.writeUInt32BE(mark, 0)
    return datagram
  }
  // Until the network's own buffers are full and the queue overflows.
  let sent = 0
  while (connection.stats.drops['queue-full'] === 0) {
    for (let i = 0; i < 100; i++) connection.send(data(sent++))
    await new Promise((resolve) => setImmediate(resolve))
  }
  const initiation = wireguardMessage(1)
  t.equal(connection.send(initiation), true)
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 20_000; i++) connection.send(data(sent++))
  t.ok(process.memoryUsage().arrayBuffers - before < 64 * 1024 * 1024, 'what is dropped is not kept')
  tunnel.socket.resume()
  const last = data(sent - 1)
  const received: Buffer[] = []
  do received.push(await tunnel.datagrams.next())
  while (!received.at(-1)!.equals(last))
  const { datagramsOut, drops } = connection.stats
  t.equal(received.length, datagramsOut)
  t.equal(datagramsOut + drops['queue-full'], sent + 1)
  const place = received.findIndex((datagram) => datagram.equals(initiation))
  const behind = received.length - place - 1
  t.ok(place >= 0 && behind > 100 && behind <= 256, `the handshake went before the ${behind} that waited`)
  t.ok(received.slice(place + 1).every((datagram, i, all) => datagram.readUInt32BE(0) === sent - all.length + i), 'the newest, in order')
})

t.test('answers a ping with its bytes', async (t) => {
  const { tunnel } = await pair(t)
  const ping = wg.keepalive()
  tunnel.socket.write(ping)
  t.same(await tunnel.controls.next(), { type: PONG, payload: ping.subarray(4) })
})

t.test('of many pings at a time answers the latest', async (t) => {
  const { tunnel } = await pair(t)
  const pings = Array.from({ length: 100 }, () => wg.keepalive())
  tunnel.socket.write(Buffer.concat(pings))
  t.same((await tunnel.controls.next()).payload, pings[99]!.subarray(4))
  tunnel.socket.write(pings[0]!)
  t.same((await tunnel.controls.next()).payload, pings[0]!.subarray(4), 'and no other in between')
})

t.test('ignores control frames it does not know, and pongs', async (t) => {
  const { tunnel, messages } = await pair(t)
  tunnel.socket.write(Buffer.from([0xff, 0, 0, 2, 1, 2, 0x90, 0, 0, 0, PONG, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]))
  tunnel.send(Buffer.from('hello'))
  t.equal(String(await messages.next()), 'hello')
})

t.test('keepalive', async (t) => {
  t.test('wg: pings while nothing is received, also while sending', async (t) => {
    const { connection, tunnel } = await pair(t, { keepaliveInterval: 50, keepaliveTimeout: 60_000 })
    const busy = setInterval(() => connection.send(Buffer.from('x')), 10)
    t.teardown(() => clearInterval(busy))
    const pings = await tunnel.controls.take(2)
    t.same(pings.map(({ type }) => type), [PING, PING])
  })

  t.test('wg: pings not while something is received', async (t) => {
    const { tunnel, messages } = await pair(t, { keepaliveInterval: 400, keepaliveTimeout: 60_000 })
    for (let i = 0; i < 20; i++) {
      tunnel.send(Buffer.from('x'))
      await messages.next()
      await new Promise((resolve) => setTimeout(resolve, 40))
    }
    t.equal(tunnel.controls.all.length, 0)
  })

  t.test('len16: sends its own while nothing is sent, also while receiving', async (t) => {
    const { tunnel } = await pair(t, { framings: ['len16'], keepaliveInterval: 50, keepaliveTimeout: 60_000 })
    const busy = setInterval(() => tunnel.send(Buffer.from('x')), 10)
    t.teardown(() => clearInterval(busy))
    await tunnel.keepalives.take(2)
  })

  t.test('len16: sends none while something is sent', async (t) => {
    const { connection, tunnel } = await pair(t, { framings: ['len16'], keepaliveInterval: 400, keepaliveTimeout: 60_000 })
    for (let i = 0; i < 20; i++) {
      connection.send(Buffer.from('x'))
      await tunnel.datagrams.next()
      await new Promise((resolve) => setTimeout(resolve, 40))
    }
    t.equal(tunnel.keepalives.all.length, 0)
  })

  t.test('a relay that says something now and then is not given up', async (t) => {
    const { connection, tunnel } = await pair(t, { keepaliveInterval: 50, keepaliveTimeout: 300 })
    for (let i = 0; i < 10; i++) {
      await tunnel.controls.next()
      tunnel.socket.write(wg.keepalive())
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    t.equal(connection.closed, false)
  })

  for (const framing of [wg, len16]) {
    t.test(`${framing.name}: a relay that stays silent is given up`, async (t) => {
      const { connection, tunnel, end } = await pair(t, { framings: [framing.name], keepaliveInterval: 50, keepaliveTimeout: 200 })
      const begin = performance.now()
      t.same(await end, { reason: 'idle', text: 'nothing came from the relay for 200 ms', retry: true, code: 4 })
      t.ok(performance.now() - begin < 1500)
      if (framing === wg) {
        const { type, payload } = tunnel.controls.all.at(-1)!
        t.equal(type, CLOSING)
        t.equal(readClosing(payload, 0, payload.length).code, 4)
      }
      t.equal(connection.closed, true)
    })
  }
})

t.test('the end', async (t) => {
  for (const [reason, { code, retry }] of Object.entries(closeReasons)) {
    t.test(`by a closing frame: ${reason}`, async (t) => {
      const { connection, tunnel, end } = await pair(t)
      tunnel.socket.end(wg.closing(code, 'some \u001b[1mwords')!)
      t.same(await end, { reason, text: 'some [1mwords', retry, code })
      t.equal(connection.closed, true)
    })
  }

  t.test('by a closing frame with a code of the future', async (t) => {
    const { tunnel, end } = await pair(t)
    tunnel.socket.end(wg.closing(999, 'new')!)
    t.same(await end, { reason: 'unknown', text: 'new', retry: true, code: 999 })
  })

  t.test('by a closing frame and no end of the connection', async (t) => {
    const { tunnel, end, messages } = await pair(t)
    tunnel.socket.removeAllListeners('end')
    tunnel.socket.write(Buffer.concat([wg.closing(6, '')!, frames(wg, [Buffer.from('too late')])]))
    t.match(await end, { reason: 'disconnected', retry: false })
    t.equal(messages.all.length, 0, 'nothing is read behind it')
  })

  t.test('without a word', async (t) => {
    const { tunnel, end } = await pair(t)
    tunnel.socket.end()
    t.same(await end, { reason: 'lost', text: 'the relay ended the connection without a reason', retry: true })
  })

  t.test('inside a frame', async (t) => {
    const { tunnel, end } = await pair(t)
    tunnel.socket.end(Buffer.from([0, 0, 0, 9, 1]))
    t.same(await end, { reason: 'lost', text: 'the stream ended inside a frame', retry: true })
  })

  t.test('by a reset', async (t) => {
    const { tunnel, end } = await pair(t)
    tunnel.socket.resetAndDestroy()
    t.match(await end, { reason: 'lost', retry: true })
  })

  t.test('by this side: what was sent arrives, and the close is told once', async (t) => {
    const { connection, tunnel, end } = await pair(t)
    let closes = 0
    connection.on('close', () => closes++)
    connection.send(Buffer.from('last'))
    connection.close()
    connection.close()
    t.equal(connection.closed, true)
    t.equal(String(await tunnel.datagrams.next()), 'last')
    t.same(await end, { reason: 'closed', text: '', retry: false })
    await tunnel.ended
    t.equal(closes, 1)
  })

  t.test('by this side, though the relay neither reads nor ends', async (t) => {
    const { connection, tunnel, end } = await pair(t)
    tunnel.socket.pause()
    for (let i = 0; i < 30_000; i++) connection.send(Buffer.alloc(1400))
    const { datagramsOut, drops } = connection.stats
    connection.close()
    t.match(await end, { reason: 'closed' })
    t.ok(connection.stats.drops.closed > 0, 'what waited is counted')
    t.equal(connection.stats.datagramsOut, datagramsOut)
    t.equal(datagramsOut + drops['queue-full'] + connection.stats.drops.closed, 30_000)
  })

  t.test('in a listener: no further message of the same chunk', async (t) => {
    const { connection, tunnel, messages, end } = await pair(t)
    connection.on('message', () => connection.close())
    tunnel.send(Buffer.from('one'), Buffer.from('two'))
    await end
    t.same(messages.all.map(String), ['one'])
  })
})

t.test('bytes that make no sense: wg tells the relay why, and closes', async (t) => {
  for (const [bytes, reason, code] of [['05000000', 'protocol-error', 1], ['04000000', 'unstamped', 2]] as const) {
    const { tunnel, end } = await pair(t)
    tunnel.socket.write(Buffer.from(bytes, 'hex'))
    const { type, payload } = await tunnel.controls.next()
    t.equal(type, CLOSING)
    const { code: told, text } = readClosing(payload, 0, payload.length)
    t.equal(told, code)
    t.same(await end, { reason, text, retry: false, code })
  }
})

t.test('passes on when the relay asks to connect anew', async (t) => {
  const { connection, tunnel } = await pair(t)
  const draining = once(connection, 'draining')
  tunnel.socket.write(wg.drain(4321)!)
  t.same(await draining, [4321])
  t.equal(connection.closed, false)
})

t.test('passes on what the relay tells about handshakes, and no flood of it', async (t) => {
  const { connection, tunnel } = await pair(t)
  const notices = new Mailbox<ConnectionNotice>()
  connection.on('notice', (notice) => notices.push(notice))
  tunnel.socket.write(Buffer.concat([wg.notice(codes.unanswered, 'not\u001b[2J\r\nanswered')!, wg.notice(999, 'of a later version')!]))
  t.same(await notices.take(2), [
    { code: 5, name: 'unanswered', text: 'not[2Janswered' },
    { code: 999, name: undefined, text: 'of a later version' }
  ])
  const tooShort = Buffer.from([NOTICE, 0, 0, 1, 7])
  tunnel.socket.write(Buffer.concat([tooShort, ...Array.from({ length: 1000 }, () => wg.notice(1, 'flood')!)]))
  tunnel.send(wireguardMessage(2))
  await once(connection, 'message')
  t.ok(notices.all.length <= 5, `${notices.all.length} of a thousand`)
  t.equal(connection.closed, false)
})

t.test('the socket has no-delay and TCP keepalive', async (t) => {
  const { Socket: NetSocket } = await import('node:net')
  const set: unknown[] = []
  t.intercept(NetSocket.prototype, 'setNoDelay', { value (this: Socket, on: boolean) { set.push(['no-delay', on]); return this } })
  t.intercept(NetSocket.prototype, 'setKeepAlive', { value (this: Socket, ...args: unknown[]) { set.push(['keepalive', ...args]); return this } })
  await pair(t)
  t.match(set, [['no-delay', true], ['keepalive', true, 60_000]])
})

t.test('sends any Uint8Array, and says so of anything else', async (t) => {
  const { connection, tunnel } = await pair(t)
  connection.send(new Uint8Array(new ArrayBuffer(8), 2, 3).fill(7))
  t.same(await tunnel.datagrams.next(), Buffer.from([7, 7, 7]))
  t.throws(() => connection.send('text' as unknown as Buffer), { name: 'TypeError', message: /Uint8Array, not string/ })
})
