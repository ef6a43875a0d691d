import t from 'tap'
import { WaitQueue } from '../../lib/util/wait-queue.ts'
import { classify, isHandshake } from '../../lib/framing/wireguard.ts'
import { wireguardMessage } from '../helpers/datagrams.ts'

/** Adds a datagram as what it is. @returns how many had to go for it */
function add (queue: WaitQueue, datagram: Buffer): number {
  return queue.add(datagram, [datagram.length], isHandshake(classify(datagram, 0, datagram.length)))
}

/** All that waits, in the order of sending. */
function drain (queue: WaitQueue): Buffer[] {
  const datagrams: Buffer[] = []
  for (let next = queue.take(0); next !== undefined; next = queue.take(0)) datagrams.push(next.bytes)
  return datagrams
}

t.test('handshake messages go first, each kind in its order', async (t) => {
  const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
  const [data, initiation, response, cookie, other] = [
    wireguardMessage(4), wireguardMessage(1), wireguardMessage(2), wireguardMessage(3), Buffer.from('other')
  ]
  for (const datagram of [data, initiation, response, other, cookie]) t.equal(add(queue, datagram), 0)
  t.equal(queue.length, 5)
  t.same(drain(queue), [initiation, response, cookie, data, other])
  t.equal(queue.length, 0)
})

t.test('above 512 datagrams the oldest data goes', async (t) => {
  const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
  const initiation = wireguardMessage(1)
  add(queue, initiation)
  for (let i = 0; i < 511; i++) t.equal(add(queue, Buffer.from([i & 255])), 0)
  t.equal(add(queue, Buffer.from('one more')), 1)
  const left = drain(queue)
  t.equal(left.length, 512)
  t.same(left.slice(0, 2), [initiation, Buffer.from([1])])
})

t.test('above 256 KiB as much of the oldest data goes as needed', async (t) => {
  const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
  for (let i = 0; i < 4; i++) t.equal(add(queue, Buffer.alloc(65535, i)), 0)
  add(queue, Buffer.alloc(4))
  t.equal(add(queue, Buffer.alloc(1)), 1)
  t.equal(add(queue, Buffer.alloc(65535)), 1)
})

t.test('what was sent makes room again', async (t) => {
  const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
  for (let round = 0; round < 100; round++) {
    t.equal(add(queue, Buffer.alloc(65535)), 0)
    queue.take(0)
  }
})

t.test('among handshake messages only, new data has to go, then the oldest of them', async (t) => {
  const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
  const messages = Array.from({ length: 512 }, () => wireguardMessage(1))
  for (const message of messages) add(queue, message)
  const data = wireguardMessage(4)
  t.equal(add(queue, data), 1)
  t.ok(queue.hasNoData)
  t.equal(add(queue, wireguardMessage(1)), 1)
  t.same(queue.take(0)?.bytes, messages[1])
})

t.test('those that came together leave together, as many as are asked for, and each can be dropped alone', async (t) => {
  const queue = new WaitQueue({ datagrams: 512, bytes: 256 * 1024 })
  const run = Buffer.concat(Array.from({ length: 10 }, (_, number) => Buffer.alloc(100, number)))
  queue.add(run, Array.from({ length: 10 }, (_, number) => (number + 1) * 100), false)
  add(queue, Buffer.from('behind'))
  t.equal(queue.length, 11)
  t.match(queue.take(299), { bytes: run.subarray(0, 200), count: 2 })
  t.match(queue.take(300), { bytes: run.subarray(200, 500), count: 3 })
  t.match(queue.take(0), { bytes: run.subarray(500, 600), count: 1 }, 'one at least')
  t.equal(queue.length, 5)
  for (let i = 0; i < 507; i++) add(queue, Buffer.from('x'))
  t.equal(add(queue, Buffer.from('x')), 1)
  const rest = queue.take(65536)
  t.match(rest, { bytes: run.subarray(700), count: 3 }, 'without the one that was dropped')
  t.equal(rest!.bytes.buffer, run.buffer, 'as the memory that was added')
  t.match(queue.take(65536), { bytes: Buffer.from('behind'), count: 1 }, 'but not what came at another time')
  t.equal(queue.length, 508)
})
