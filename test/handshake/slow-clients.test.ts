import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect, type AddressInfo, type Socket } from 'node:net'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { wireguardMessage } from '../helpers/datagrams.ts'
import { frames } from '../helpers/fake-relay.ts'
import { lines, refused, servedLast, startTable, testTable, unparsable, type Row } from '../helpers/handshake-table.ts'
import { RawClient, requestText, upgradeText } from '../helpers/raw-client.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'

/** Sends each byte in a segment of its own, and lets the other side have a turn between two. */
async function dribble (client: RawClient, bytes: Buffer | string): Promise<void> {
  for (const byte of Buffer.from(bytes)) {
    await client.send(Uint8Array.of(byte))
    await new Promise((resolve) => setImmediate(resolve))
  }
}

t.test('bytes that come one by one', async (t) => {
  await t.test('make a tunnel, and are the bytes of the tunnel', async (t) => {
    const app = await startTable(t)
    const client = await RawClient.dial(t, app)
    await dribble(client, upgradeText('/relay') + 'early data')
    t.equal((await client.head()).head, lines('HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: spanza'))
    const partner = await openTunnel(t, app, { path: '/relay', framing: 'raw' })
    await dribble(client, ', late data')
    await until(() => partner.bytes.toString() === 'early data, late data')
  })

  for (const framing of [wg, len16]) {
    await t.test(`make datagrams in ${framing.name}`, async (t) => {
      const app = await startTable(t)
      const partner = await openTunnel(t, app, { path: '/relay', framing: 'len16' })
      const client = await RawClient.dial(t, app)
      await client.send(upgradeText('/relay', { headers: { 'Spanza-Framing': framing.name } }))
      t.equal((await client.head()).statusCode, 101)
      const sent = [wireguardMessage(1), wireguardMessage(4, 32), wireguardMessage(4, 200), Buffer.from([7])]
      await dribble(client, frames(framing, sent))
      t.same(await partner.datagrams.take(sent.length), sent)
    })
  }

  await t.test('are refused as if they came at once', async (t) => {
    const app = await startTable(t)
    const refusals: Row[] = [
      ['an upgrade to what is not spoken', upgradeText('/relay', { headers: { 'Spanza-Framing': 'cobs' } }),
        refused(400, 'FST_RELAY_FRAMING', 'No framing in common: asked for "cobs", this route has: wg, len16, raw')],
      ['a malformed one', upgradeText('/relay', { host: false }),
        refused(400, 'FST_RELAY_HOST_HEADER', 'An upgrade request must have exactly one Host header, this one has none')],
      ['REST', requestText('/alive', { headers: { Connection: 'close' } }), servedLast(200, 'alive')]
    ]
    for (const [title, sent, expected] of refusals) {
      await testTable(t, app, [[title, '', async (exchange) => {
        await dribble(exchange.client, sent)
        await expected(exchange)
      }]])
    }
  })
})

t.test('a client that never finishes its header gets a 408 by Node\'s deadline, and tunnels do not', async (t) => {
  const http = { headersTimeout: 100, connectionsCheckingInterval: 20 }
  const app = await startTable(t, undefined, { server: { http } as FastifyServerOptions })
  const [a, b] = [await openTunnel(t, app, { path: '/relay', framing: 'raw' }), await openTunnel(t, app, { path: '/relay', framing: 'raw' })]
  const whole = upgradeText('/relay')
  await testTable(t, app, [
    ['nothing at all', '', unparsable(408)],
    ['one byte', 'G', unparsable(408)],
    ['half a request line', 'GET /rel', unparsable(408)],
    ['a request line', 'GET /relay HTTP/1.1\r\n', unparsable(408)],
    ['half a header', whole.slice(0, -10), unparsable(408)],
    ['all but the last LF', whole.slice(0, -1), unparsable(408)],
    ['one that goes on, ever so slowly', whole.slice(0, -4), async (exchange) => {
      const { client } = exchange
      const timer = setInterval(() => client.socket.write('X: y\r\n'), 20)
      exchange.t.teardown(() => clearInterval(timer))
      await unparsable(408)(exchange)
    }]
  ])
  a.write('still here')
  await until(() => b.bytes.toString() === 'still here')
  t.equal(app.relayHub.stats().peers, 2)
})

/** Asks for a tunnel, and never reads. @returns its socket and its peer's id */
async function neverRead (t: Test, app: FastifyInstance, headers: Record<string, string> = {}): Promise<{ socket: Socket, id: string }> {
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  socket.on('error', () => {})
  const attached = once(app.relayHub, 'attach')
  socket.write(upgradeText('/relay', { headers }))
  const [{ id }] = await attached
  return { socket, id }
}

t.test('a client that never reads its 101', async (t) => {
  const asked: Record<string, Record<string, string>> = {
    wg: { 'Spanza-Framing': 'wg' },
    len16: { 'Spanza-Framing': 'len16' },
    'UoTLV/1': { Upgrade: 'UoTLV/1' }
  }
  for (const [what, headers] of Object.entries(asked)) {
    await t.test(`is closed by writeTimeout where its partner sends datagrams in ${what}`, async (t) => {
      const app = await startTable(t, undefined, { relay: { writeTimeout: 100 } })
      const { id } = await neverRead(t, app, headers)
      const partner = await openTunnel(t, app, { path: '/relay', framing: 'wg' })
      const reason = new Promise<string>((resolve) => app.relayHub.on('detach', (peer, info) => {
        if (peer.id === id) resolve(info.reason)
      }))
      const datagrams = frames(wg, Array<Buffer>(64).fill(wireguardMessage(4, 1024)))
      let isDone = false
      const send = (): void => { if (!isDone) partner.socket.write(datagrams, () => setImmediate(send)) }
      send()
      t.equal(await reason, 'write-deadline')
      isDone = true
    })
  }

  await t.test('holds back its partner on a raw tunnel, as TCP does, and nobody else', async (t) => {
    const app = await startTable(t)
    const { socket } = await neverRead(t, app)
    const partner = await openTunnel(t, app, { path: '/relay', framing: 'raw' })
    const bytes = randomBytes(64 * 1_048_576)
    partner.write(bytes)
    const other = await RawClient.dial(t, app)
    for (let i = 0; i < 100; i++) {
      await other.send(requestText('/alive'))
      t.equal((await other.answer()).body, 'alive')
    }
    t.ok(partner.socket.writableLength > 0, 'the partner has got the rest')
    t.equal(app.relayHub.stats().peers, 2, 'a stream may pause, for less than writeTimeout')
    const chunks: Buffer[] = []
    let length = 0
    socket.on('data', (chunk) => {
      chunks.push(chunk)
      length += chunk.length
    })
    const head = Buffer.from(lines('HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: spanza'))
    await until(() => length >= head.length + bytes.length)
    t.ok(Buffer.concat(chunks).equals(Buffer.concat([head, bytes])), 'and gets all when it reads at last')
  })

  await t.test('is a peer like any other', async (t) => {
    const app = await startTable(t)
    const { socket } = await neverRead(t, app)
    const partner = await openTunnel(t, app, { path: '/relay', framing: 'raw' })
    socket.write('unread, not unheard')
    await until(() => partner.bytes.toString() === 'unread, not unheard')
  })
})
