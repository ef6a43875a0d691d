import t, { type Test } from 'tap'
import { Bridge } from '../../../lib/client/sidecar/bridge.ts'
import { wireguardMessage } from '../../helpers/datagrams.ts'

/** A bridge and the number of datagrams it gave up. */
function bridge () {
  const counted = { dropped: 0, bridge: new Bridge((count) => { counted.dropped += count }) }
  return counted
}

/** Makes performance.now() a clock that the test sets. */
function clock (t: Test) {
  const time = { now: 1000 }
  t.intercept(performance, 'now', { value: () => time.now })
  return time
}

t.test('gives out what came, oldest first, once', async (t) => {
  const { bridge: b } = bridge()
  const datagrams = [Buffer.from('a'), Buffer.from('b')]
  for (const datagram of datagrams) b.add(datagram)
  t.same(b.take(), datagrams)
  t.same(b.take(), [])
})

t.test('keeps the newest 64', async (t) => {
  const counted = bridge()
  for (let i = 0; i < 70; i++) counted.bridge.add(Buffer.from([i]))
  t.equal(counted.dropped, 6)
  const kept = counted.bridge.take()
  t.same([kept.length, kept[0]![0], kept[63]![0]], [64, 6, 69])
})

t.test('keeps nothing for 2 s', async (t) => {
  const time = clock(t)
  const counted = bridge()
  counted.bridge.add(Buffer.from('old'))
  time.now += 1500
  counted.bridge.add(Buffer.from('new'))
  time.now += 500
  t.same(counted.bridge.take().map(String), ['new'])
  t.equal(counted.dropped, 1)
})

t.test('of handshake initiations keeps only the newest', async (t) => {
  const counted = bridge()
  const first = wireguardMessage(1)
  const response = wireguardMessage(2)
  const second = wireguardMessage(1)
  for (const datagram of [first, response, second]) counted.bridge.add(datagram)
  t.same(counted.bridge.take(), [response, second])
  t.equal(counted.dropped, 1)
})

t.test('counts what it holds when it is cleared', async (t) => {
  const counted = bridge()
  counted.bridge.add(Buffer.from('a'))
  counted.bridge.clear()
  t.equal(counted.dropped, 1)
  t.same(counted.bridge.take(), [])
})
