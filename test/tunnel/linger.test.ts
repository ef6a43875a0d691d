import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { endAndLinger } from '../../lib/tunnel/linger.ts'
import { RawClient } from '../helpers/raw-client.ts'

/** The two ends of a connection. */
async function connectionOf (t: Test): Promise<{ tunnel: Socket, client: RawClient }> {
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const connected = once(server, 'connection')
  const socket = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', allowHalfOpen: true })
  const client = new RawClient(socket)
  const [tunnel] = await connected as [Socket]
  tunnel.on('error', () => {})
  t.teardown(() => {
    socket.destroy()
    tunnel.destroy()
    server.close()
  })
  return { tunnel, client }
}

t.test('what was written last arrives over bytes that nobody has read', async (t) => {
  const { tunnel, client } = await connectionOf(t)
  await client.send(Buffer.alloc(60_000))
  tunnel.write('first ')
  endAndLinger(tunnel, Buffer.from('last'))
  t.equal((await client.readToEnd()).toString(), 'first last')
  const closed = once(tunnel, 'close')
  client.socket.end()
  await closed
  t.equal(await client.closed, undefined, 'no reset')
})

t.test('an other side that has ended first gets what was written', async (t) => {
  const { tunnel, client } = await connectionOf(t)
  client.socket.end('gone')
  const closed = once(tunnel, 'close')
  endAndLinger(tunnel, Buffer.alloc(100_000, 'x'))
  t.equal((await client.readToEnd()).length, 100_000)
  await closed
})

t.test('an other side that goes on sending is cut off', async (t) => {
  const { tunnel, client } = await connectionOf(t)
  const closed = once(tunnel, 'close')
  endAndLinger(tunnel)
  while (!tunnel.destroyed) {
    await client.send(Buffer.alloc(16_384)).catch(() => {})
    await new Promise((resolve) => setImmediate(resolve))
  }
  await closed
  t.ok(tunnel.bytesRead > 65_536, 'after 64 KiB')
  t.ok(tunnel.bytesRead <= 3 * 65_536, 'and what came along with the last of them')
})

t.test('an other side that does nothing is waited for no longer than a moment', async (t) => {
  const { tunnel, client } = await connectionOf(t)
  endAndLinger(tunnel)
  await once(tunnel, 'close')
  client.socket.end()
  await client.closed
})

t.test('a tunnel that is destroyed already is left alone', async (t) => {
  const { tunnel } = await connectionOf(t)
  tunnel.destroy()
  await once(tunnel, 'close')
  const before = tunnel.eventNames()
  endAndLinger(tunnel, Buffer.from('x'))
  t.same(tunnel.eventNames(), before)
})
