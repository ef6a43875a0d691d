import { randomBytes } from 'node:crypto'
import t from 'tap'
import * as ws from 'ws'
import { webSocketEncoding } from '../../lib/framing/websocket-encoding.ts'

/** What @types/ws has not. */
interface WsReceiver {
  on: (event: 'message' | 'ping', listener: (payload: Buffer) => void) => void
  write: (bytes: Buffer) => void
}

const { Receiver } = ws as unknown as { Receiver: new (options: object) => WsReceiver }

/** What ws reads out of a server's bytes. */
function messagesIn (bytes: Buffer): Buffer[] {
  const messages: Buffer[] = []
  const receiver = new Receiver({ isServer: false, allowSynchronousEvents: true })
  receiver.on('message', (message: Buffer) => messages.push(message))
  receiver.write(bytes)
  return messages
}

t.test('ws reads what was framed here', async (t) => {
  for (const size of [1, 2, 124, 125, 126, 127, 128, 1420, 65534, 65535]) {
    const datagram = randomBytes(size)
    const target = Buffer.alloc(10 + size + webSocketEncoding.maxOverhead)
    const end = webSocketEncoding.encode(target, 10, Buffer.concat([randomBytes(3), datagram]), 3, 3 + size, false)
    t.same(messagesIn(target.subarray(10, end)), [datagram], `${size} bytes`)
  }
})

t.test('a length in the reserved bytes of WireGuard is not passed on', async (t) => {
  const message = Buffer.concat([Buffer.from([4, 0, 0, 32]), randomBytes(28)])
  const target = Buffer.alloc(64)
  const end = webSocketEncoding.encode(target, 0, message, 0, 32, true)
  t.same(messagesIn(target.subarray(0, end)), [Buffer.concat([Buffer.from([4, 0, 0, 0]), message.subarray(4)])])
  t.equal(message[3], 32, 'and is left where it was')
})

t.test('a keepalive is a ping', async (t) => {
  let pings = 0
  const receiver = new Receiver({ isServer: false, allowSynchronousEvents: true })
  receiver.on('ping', () => pings++)
  receiver.write(webSocketEncoding.keepalive())
  t.equal(pings, 1)
})
