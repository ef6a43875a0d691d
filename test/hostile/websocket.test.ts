import { createHash, randomBytes } from 'node:crypto'
import websocket from '@fastify/websocket'
import t from 'tap'
import type { WebSocket } from 'ws'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'
import { openWebSocket } from '../helpers/websocket.ts'

const openingHandshake = upgradeText('/relay', {
  headers: { Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
})
/** A binary message without a mask, which no client may send. */
const brokenFrame = Buffer.from([0x82, 1, 0])

t.test('a broken frame behind the Close frame that says that there is no room any more does no harm', async (t) => {
  const verified: Array<() => void> = []
  const app = await startApp(t, async (app) => {
    await app.register(websocket, { options: { verifyClient: (_info, answer) => { verified.push(() => answer(true)) } } })
    app.relay('/relay')
  }, { relay: { maxPeers: 1 } })
  const first = await RawClient.dial(t, app)
  await first.send(openingHandshake)
  await until(() => verified.length === 1)
  const second = await RawClient.dial(t, app)
  await second.send(openingHandshake)
  await until(() => verified.length === 2)
  for (const goOn of verified) goOn()
  t.match(await second.head(), { statusCode: 101 })
  const [opcode, length] = await second.read(2)
  t.equal(opcode, 0x88, 'a Close frame')
  t.equal((await second.read(length!)).readUInt16BE(), 1013)
  await second.send(brokenFrame)
  await second.closed
  t.equal(app.relayHub.stats().peers, 1)
})

async function sumOf (socket: WebSocket, length: number): Promise<string> {
  const hash = createHash('sha256')
  let received = 0
  return await new Promise((resolve) => {
    socket.on('message', (message: Buffer) => {
      hash.update(message)
      received += message.length
      if (received >= length) resolve(hash.digest('hex'))
    })
  })
}

t.test('a stream flows into the one that is read, while the other way is blocked', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay'))
  const open = async (): Promise<WebSocket> => await openWebSocket(t, app, '/relay', ['spanza.raw.v1'])
  const [reader, blocked] = [await open(), await open()]
  const bytes = randomBytes(24 * 1024 * 1024)
  const sum = createHash('sha256').update(bytes).digest('hex')
  blocked.pause()
  const read = sumOf(reader, bytes.length)
  const readLater = sumOf(blocked, bytes.length)
  for (let start = 0; start < bytes.length; start += 256 * 1024) {
    for (const socket of [reader, blocked]) socket.send(bytes.subarray(start, start + 256 * 1024))
  }
  t.equal(await read, sum)
  blocked.resume()
  t.equal(await readLater, sum)
})

t.test('a receiver that does not read holds the sender back, also where its messages are compressed', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { perMessageDeflate: true }))
  const sender = await openWebSocket(t, app, '/relay', ['spanza.raw.v1'], { perMessageDeflate: false })
  const receiver = await openWebSocket(t, app, '/relay', ['spanza.raw.v1'], { perMessageDeflate: true })
  receiver.pause()
  const piece = randomBytes(256 * 1024)
  for (let i = 0; i < 256; i++) sender.send(piece)
  const taken = (): number => Math.max(...app.relayHub.peers().map(({ bytesIn }) => bytesIn))
  let before = -1
  while (taken() !== before) {
    before = taken()
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  // What two kernels hold, and not all of it.
  t.ok(taken() < 32 * 1024 * 1024, `${taken()} bytes are taken`)
})
