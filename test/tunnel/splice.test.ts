import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import t from 'tap'
import { afterFirstByte, forward } from '../../lib/tunnel/splice.ts'
import { socketTunnel } from '../../lib/tunnel/socket/socket-tunnel.ts'
import { FakeTunnel } from '../helpers/fake-tunnel.ts'

t.test('bytes and the end are carried over, and counted', async (t) => {
  const [from, to] = [new FakeTunnel(), new FakeTunnel()]
  let count = 0
  forward(from.tunnel, to.tunnel, (length) => { count += length })
  await from.receive(Buffer.from('abc'))
  await from.receive(Buffer.from('de'))
  t.equal(Buffer.concat(to.writes).toString(), 'abcde')
  t.equal(count, 5)
  t.notOk(to.writableEnded)
  from.push(null)
  await new Promise((resolve) => to.on('finish', resolve))
  t.notOk(to.destroyed, 'the other direction goes on')
})

t.test('no more is read than the other side takes', async (t) => {
  const [from, to] = [new FakeTunnel(), new FakeTunnel({ isOpen: false })]
  forward(from.tunnel, to.tunnel, () => {})
  for (let i = 0; i < 5; i++) await from.receive(Buffer.from([i]))
  t.equal(to.writes.length, 1)
  t.ok(from.isPaused())
  await to.takeOne()
  t.equal(to.writes.length, 2, 'one more when one was taken')
  await to.open()
  t.equal(Buffer.concat(to.writes).toString('hex'), '0001020304')
})

t.test('nothing is read while the other side has yet to take what was written before', async (t) => {
  const [from, to] = [new FakeTunnel(), new FakeTunnel({ isOpen: false })]
  to.write('first')
  forward(from.tunnel, to.tunnel, () => {})
  await from.receive(Buffer.from('second'))
  t.equal(Buffer.concat(to.writes).toString(), 'first')
  await to.open()
  t.equal(Buffer.concat(to.writes).toString(), 'firstsecond')
})

t.test('what is no TCP socket is aborted, too', async (t) => {
  const tunnel = new FakeTunnel()
  tunnel.tunnel.abort('lost', 'a test')
  t.ok(tunnel.destroyed)
})

t.test('a socket that has just been ended is closed all the same', async (t) => {
  const server = createServer({ allowHalfOpen: true })
  t.teardown(() => server.close())
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const client = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  client.on('error', () => {})
  const [tunnel] = await accepted
  const closed = once(tunnel, 'close')
  tunnel.write('last words')
  tunnel.end()
  socketTunnel(tunnel).abort('lost', 'a test')
  await closed
  client.destroy()
})

t.test('what waits for a first byte waits no longer than for that', async (t) => {
  const tunnel = new FakeTunnel()
  let calls = 0
  afterFirstByte(tunnel.tunnel, () => { calls++ })
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(calls, 0)
  await tunnel.receive(Buffer.from('a'))
  t.equal(calls, 1)
  await tunnel.receive(Buffer.from('b'))
  t.equal(calls, 1, 'once')
})

t.test('what waits for a first byte that never comes waits for a moment, and not for one who has left', async (t) => {
  const [silent, gone] = [new FakeTunnel(), new FakeTunnel()]
  let goneCalls = 0
  afterFirstByte(gone.tunnel, () => { goneCalls++ })
  gone.destroy()
  await new Promise<void>((resolve) => afterFirstByte(silent.tunnel, resolve))
  t.equal(goneCalls, 0)
})

t.test('a large chunk is written in pieces, each when the one before has been taken, and the end behind them', async (t) => {
  const [from, to] = [new FakeTunnel({ highWaterMark: 65536 }), new FakeTunnel({ isOpen: false, highWaterMark: 65536 })]
  const counted: number[] = []
  forward(from.tunnel, to.tunnel, (length) => counted.push(length))
  const chunk = Buffer.alloc(150_000, 'abcdefg')
  await from.receive(chunk)
  from.push(Buffer.from('behind it'))
  from.push(null)
  t.same(counted, [65536])
  await to.takeOne()
  t.same(counted, [65536, 65536])
  const finished = once(to, 'finish')
  await to.open()
  await finished
  t.ok(Buffer.concat(to.writes).equals(Buffer.concat([chunk, Buffer.from('behind it')])))
})
