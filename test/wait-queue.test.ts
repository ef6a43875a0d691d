import t from 'tap'
import { WaitQueue } from '../lib/wait-queue.ts'
import { classify, isHandshake } from '../lib/wireguard.ts'
import { wireguardMessage } from './helpers/datagrams.ts'

/** Adds a datagram as what it is. */
function add (queue: WaitQueue, datagram: Buffer): Buffer[] {
  return queue.add(datagram, isHandshake(classify(datagram, 0, datagram.length)))
}

/** All that waits, in the order of sending. */
function drain (queue: WaitQueue): Buffer[] {
  const datagrams: Buffer[] = []
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) datagrams.push(next)
  return datagrams
}

t.test('handshake messages go first, each kind in its order', async (t) => {
  const queue = new WaitQueue()
  const [data, initiation, response, cookie, other] = [
    wireguardMessage(4), wireguardMessage(1), wireguardMessage(2), wireguardMessage(3), Buffer.from('other')
  ]
  for (const datagram of [data, initiation, response, other, cookie]) t.same(add(queue, datagram), [])
  t.equal(queue.length, 5)
  t.same(drain(queue), [initiation, response, cookie, data, other])
  t.equal(queue.length, 0)
})

t.test('above 512 datagrams the oldest data goes', async (t) => {
  const queue = new WaitQueue()
  const initiation = wireguardMessage(1)
  add(queue, initiation)
  for (let i = 0; i < 511; i++) t.same(add(queue, Buffer.from([i & 255])), [])
  const oldest = add(queue, Buffer.from('one more'))
  t.same(oldest, [Buffer.from([0])])
  const left = drain(queue)
  t.equal(left.length, 512)
  t.equal(left[0], initiation)
})

t.test('above 256 KiB as much of the oldest data goes as needed', async (t) => {
  const queue = new WaitQueue()
  for (let i = 0; i < 4; i++) t.same(add(queue, Buffer.alloc(65535, i)), [])
  add(queue, Buffer.alloc(4))
  t.equal(add(queue, Buffer.alloc(1)).length, 1)
  t.equal(add(queue, Buffer.alloc(65535)).length, 1)
})

t.test('what was sent makes room again', async (t) => {
  const queue = new WaitQueue()
  for (let round = 0; round < 100; round++) {
    t.same(add(queue, Buffer.alloc(65535)), [])
    queue.shift()
  }
})

t.test('among handshake messages only, new data has to go, then the oldest of them', async (t) => {
  const queue = new WaitQueue()
  const messages = Array.from({ length: 512 }, () => wireguardMessage(1))
  for (const message of messages) add(queue, message)
  const data = wireguardMessage(4)
  t.same(add(queue, data), [data])
  t.same(add(queue, wireguardMessage(1)), [messages[0]])
})
