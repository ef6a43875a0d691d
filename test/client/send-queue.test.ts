import t from 'tap'
import { SendQueue } from '../../lib/client/send-queue.ts'
import { wireguardMessage } from '../helpers/datagrams.ts'

/** All that waits, in the order of sending. */
function drain (queue: SendQueue): Buffer[] {
  const datagrams: Buffer[] = []
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) datagrams.push(next)
  return datagrams
}

t.test('handshake messages go first, each kind in its order', async (t) => {
  const queue = new SendQueue()
  const [data, initiation, response, cookie, other] = [
    wireguardMessage(4), wireguardMessage(1), wireguardMessage(2), wireguardMessage(3), Buffer.from('other')
  ]
  for (const datagram of [data, initiation, response, other, cookie]) t.same(queue.add(datagram), [])
  t.equal(queue.length, 5)
  t.same(drain(queue), [initiation, response, cookie, data, other])
  t.equal(queue.length, 0)
})

t.test('above 512 datagrams the oldest data goes', async (t) => {
  const queue = new SendQueue()
  const initiation = wireguardMessage(1)
  queue.add(initiation)
  for (let i = 0; i < 511; i++) t.same(queue.add(Buffer.from([i & 255])), [])
  const oldest = queue.add(Buffer.from('one more'))
  t.same(oldest, [Buffer.from([0])])
  const left = drain(queue)
  t.equal(left.length, 512)
  t.equal(left[0], initiation)
})

t.test('above 256 KiB as much of the oldest data goes as needed', async (t) => {
  const queue = new SendQueue()
  for (let i = 0; i < 4; i++) t.same(queue.add(Buffer.alloc(65535, i)), [])
  queue.add(Buffer.alloc(4))
  t.equal(queue.add(Buffer.alloc(1)).length, 1)
  t.equal(queue.add(Buffer.alloc(65535)).length, 1)
})

t.test('what was sent makes room again', async (t) => {
  const queue = new SendQueue()
  for (let round = 0; round < 100; round++) {
    t.same(queue.add(Buffer.alloc(65535)), [])
    queue.shift()
  }
})

t.test('among handshake messages only, new data has to go, then the oldest of them', async (t) => {
  const queue = new SendQueue()
  const messages = Array.from({ length: 512 }, () => wireguardMessage(1))
  for (const message of messages) queue.add(message)
  const data = wireguardMessage(4)
  t.same(queue.add(data), [data])
  t.same(queue.add(wireguardMessage(1)), [messages[0]])
})
