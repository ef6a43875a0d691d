import { randomBytes } from 'node:crypto'
import t from 'tap'
import type { Framing } from '../../../lib/framing/framing.ts'
import { len16 } from '../../../lib/framing/len16.ts'
import { wg } from '../../../lib/framing/wg.ts'
import { SendQueue } from '../../../lib/hub/packet/send-queue.ts'
import { wireguardMessage } from '../../helpers/datagrams.ts'
import { frames } from '../../helpers/fake-relay.ts'
import { FakeTunnel } from '../../helpers/fake-tunnel.ts'
import { decode } from '../../helpers/sink.ts'

function setUp (framing: Framing, options?: ConstructorParameters<typeof FakeTunnel>[0]) {
  const tunnel = new FakeTunnel(options)
  const counters = {
    datagramsOut: 0,
    bytesOut: 0,
    dropped: 0,
    depths: [] as number[],
    waits: (behind: number) => { counters.depths.push(behind) },
    left: 0,
    waited: (milliseconds: number, count: number) => { if (milliseconds >= 0) counters.left += count },
    overflowed: (count: number) => { counters.dropped += count }
  }
  const queue = new SendQueue(tunnel.tunnel, framing, counters)
  return { tunnel, counters, queue }
}

/** A queue whose socket has not taken a first ping. */
function setUpBlocked (framing: Framing) {
  const all = setUp(framing, { isOpen: false })
  all.queue.control(framing.keepalive())
  return all
}

/** Adds all datagrams that `chunk`, framed in `from`, holds. @returns what `add` returned for each */
function addAll (queue: SendQueue, from: Framing, chunk: Buffer, isMine = (_index: number) => true): boolean[] {
  const owed: boolean[] = []
  let index = 0
  from.createDecoder({
    datagram: (source, frame, start, end, stamped) => {
      if (isMine(index++)) owed.push(queue.add(source, frame, start, end, stamped, from, source[start]! < 4 && source[start]! > 0))
    },
    tooLarge: () => { throw new Error('too large') }
  }, { maxPacketSize: 65535 }).push(chunk)
  return owed
}

/** Data with a number in it. */
function numbered (number: number, size = 100): Buffer {
  const message = wireguardMessage(4, size)
  message.writeUInt32BE(number, 16)
  return message
}

function numbersOf (datagrams: Buffer[]): number[] {
  return datagrams.map((datagram) => datagram.readUInt32BE(16))
}

for (const framing of [wg, len16]) {
  t.test(`a run of datagrams leaves as the memory it came in, from ${framing.name} to ${framing.name}`, async (t) => {
    const { tunnel, counters, queue } = setUp(framing)
    const datagrams = [wireguardMessage(4, 50), wireguardMessage(1), Buffer.from('junk'), wireguardMessage(4, 1400)]
    const chunk = frames(framing, datagrams)
    t.same(addAll(queue, framing, chunk), [true, false, false, false], 'one flush is owed')
    t.equal(tunnel.writes.length, 0)
    queue.flush()
    t.equal(tunnel.writes.length, 1)
    t.same(tunnel.writes[0], chunk)
    t.equal(tunnel.writes[0]!.buffer, chunk.buffer)
    t.match(counters, { datagramsOut: 4, bytesOut: chunk.length, dropped: 0 })
    queue.flush()
    t.equal(tunnel.writes.length, 1, 'and once')
  })

  t.test(`datagrams that do not lie next to each other leave in one write, from ${framing.name} to ${framing.name}`, async (t) => {
    const { tunnel, queue } = setUp(framing)
    const datagrams = Array.from({ length: 9 }, (_, number) => numbered(number))
    const chunk = frames(framing, datagrams)
    addAll(queue, framing, chunk, (index) => index % 4 < 2)
    queue.flush()
    t.equal(tunnel.writes.length, 1)
    t.same(numbersOf(decode(framing, tunnel.writes).sink.datagrams), [0, 1, 4, 5, 8])
  })
}

t.test('datagrams of two chunks are not taken for neighbours', async (t) => {
  const { tunnel, queue } = setUp(wg)
  const [first, second] = [numbered(1, 100), numbered(2, 100)]
  const [one, two] = [frames(wg, [first]), Buffer.concat([Buffer.alloc(100), frames(wg, [second])])]
  queue.add(one, 0, 0, 100, true, wg, false)
  queue.add(two, 100, 100, 200, true, wg, false)
  queue.flush()
  t.same(decode(wg, tunnel.writes).sink.datagrams, [first, second])
})

for (const [from, to] of [[wg, len16], [len16, wg]] as const) {
  t.test(`from ${from.name} to ${to.name} datagrams are written anew, and what was received stays as it was`, async (t) => {
    const { tunnel, counters, queue } = setUp(to)
    const datagrams = [wireguardMessage(4, 50), wireguardMessage(1), Buffer.from([4, 1, 1, 1, ...randomBytes(80)]), Buffer.from('x')]
    const chunk = frames(from, datagrams)
    const before = Buffer.from(chunk)
    addAll(queue, from, chunk)
    queue.flush()
    t.equal(tunnel.writes.length, 1)
    t.same(tunnel.writes[0], frames(to, datagrams))
    t.same(chunk, before)
    t.match(counters, { datagramsOut: 4, bytesOut: tunnel.writes[0]!.length, dropped: 0 })
  })
}

for (const to of [wg, len16]) {
  t.test(`what waits for the socket is the same in ${to.name}`, async (t) => {
    for (const from of [wg, len16]) {
      const { tunnel, counters, queue } = setUpBlocked(to)
      const datagrams = [wireguardMessage(4, 50), Buffer.from([4, 1, 1, 1, ...randomBytes(80)]), wireguardMessage(4, 1400)]
      const chunk = frames(from, datagrams)
      addAll(queue, from, chunk)
      queue.flush()
      chunk.fill(0xff)
      t.equal(queue.length, 3)
      await tunnel.open()
      t.same(decode(to, tunnel.writes).sink.datagrams, datagrams, 'a copy: the chunk was used again meanwhile')
      t.equal(tunnel.writes.length, 2, 'in one write')
      t.equal(counters.datagramsOut, 3)
      t.equal(queue.length, 0)
    }
  })
}

t.test('handshake messages go before data that waits', async (t) => {
  const { tunnel, queue } = setUpBlocked(wg)
  const [early, late] = [numbered(1), numbered(2)]
  const handshakes = [wireguardMessage(1), wireguardMessage(2), wireguardMessage(3)]
  addAll(queue, wg, frames(wg, [early, handshakes[0]!, handshakes[1]!, late, handshakes[2]!]))
  queue.flush()
  await tunnel.open()
  t.same(decode(wg, tunnel.writes).sink.datagrams, [...handshakes, early, late])
})

t.test('at most 512 datagrams wait; the oldest data goes first', async (t) => {
  const { tunnel, counters, queue } = setUpBlocked(wg)
  const handshakes = [wireguardMessage(1), wireguardMessage(2)]
  addAll(queue, wg, frames(wg, [handshakes[0]!, ...Array.from({ length: 600 }, (_, number) => numbered(number)), handshakes[1]!]))
  queue.flush()
  t.equal(queue.length, 512)
  t.equal(counters.dropped, 90)
  await tunnel.open()
  const { datagrams } = decode(wg, tunnel.writes).sink
  t.same(datagrams.slice(0, 2), handshakes)
  t.same(numbersOf(datagrams.slice(2)), Array.from({ length: 510 }, (_, i) => i + 90))
  t.equal(counters.datagramsOut + counters.dropped, 602)
})

t.test('at most 256 KiB wait', async (t) => {
  const { tunnel, counters, queue } = setUpBlocked(wg)
  addAll(queue, wg, frames(wg, Array.from({ length: 300 }, (_, number) => numbered(number, 2048))))
  queue.flush()
  t.equal(queue.length, 128)
  t.equal(counters.dropped, 172)
  addAll(queue, wg, frames(wg, [numbered(300, 65535)]))
  queue.flush()
  t.equal(queue.length, 97, 'one large one takes the place of many')
  await tunnel.open()
  t.equal(numbersOf(decode(wg, tunnel.writes).sink.datagrams).at(-1), 300)
  addAll(queue, wg, frames(wg, [numbered(301)]))
  queue.flush()
  t.equal(decode(wg, tunnel.writes).sink.datagrams.length, 98, 'and the room is there again')
})

t.test('where only handshake messages wait, data finds no room, and a new one takes the place of the oldest', async (t) => {
  const { tunnel, queue, counters } = setUpBlocked(wg)
  const handshakes = Array.from({ length: 513 }, () => wireguardMessage(3))
  addAll(queue, wg, frames(wg, handshakes.slice(0, 512)))
  t.equal(counters.dropped, 0)
  addAll(queue, wg, frames(wg, [numbered(1)]))
  queue.flush()
  addAll(queue, wg, frames(wg, [handshakes[512]!]))
  t.equal(queue.length, 512)
  t.equal(counters.dropped, 2)
  await tunnel.open()
  t.same(decode(wg, tunnel.writes).sink.datagrams, handshakes.slice(1))
})

t.test('what waits is written in parts, as the socket takes them', async (t) => {
  const { tunnel, queue } = setUpBlocked(wg)
  addAll(queue, wg, frames(wg, Array.from({ length: 120 }, (_, number) => numbered(number, 2000))))
  queue.flush()
  for (const left of [88, 56, 24, 0]) {
    await tunnel.takeOne()
    t.equal(queue.length, left)
    t.ok(tunnel.writes.at(-1)!.length <= 64 * 1024 + 2000)
  }
  t.same(numbersOf(decode(wg, tunnel.writes).sink.datagrams), Array.from({ length: 120 }, (_, number) => number))
})

t.test('of control frames only the newest waits, and goes first', async (t) => {
  const { tunnel, queue } = setUpBlocked(wg)
  const data = numbered(1)
  addAll(queue, wg, frames(wg, [data]))
  queue.flush()
  const [first, second] = [wg.keepalive(), wg.keepalive()]
  queue.control(first)
  queue.control(second)
  await tunnel.open()
  t.same(Buffer.concat(tunnel.writes.slice(1)), Buffer.concat([second, frames(wg, [data])]))
})

t.test('a control frame does not overtake what has been gathered', async (t) => {
  const { tunnel, queue } = setUp(wg)
  const chunk = frames(wg, [numbered(1)])
  addAll(queue, wg, chunk)
  const ping = wg.keepalive()
  queue.control(ping)
  queue.flush()
  t.same(tunnel.writes, [chunk, ping])
})

t.test('clearing forgets all, gathered or waiting, and counts it', async (t) => {
  const blocked = setUpBlocked(wg)
  addAll(blocked.queue, wg, frames(wg, [numbered(1), wireguardMessage(1)]))
  blocked.queue.control(wg.keepalive())
  t.equal(blocked.queue.clear(), 2)
  await blocked.tunnel.open()
  t.equal(blocked.tunnel.writes.length, 1)

  const gathered = setUp(wg)
  addAll(gathered.queue, wg, frames(wg, [numbered(1), numbered(2)]))
  t.equal(gathered.queue.clear(), 2)
  gathered.queue.flush()
  t.equal(gathered.tunnel.writes.length, 0)
  t.equal(gathered.counters.datagramsOut, 0)
})

t.test('a small piece that has to wait in the socket does not keep a large chunk alive', async (t) => {
  // A socket that is behind, but has room in its buffer.
  const { tunnel, queue } = setUp(wg, { isOpen: false, highWaterMark: 65536 })
  const chunk = Buffer.concat([frames(wg, [numbered(1)]), Buffer.alloc(65536)])
  queue.control(wg.keepalive())
  for (let i = 0; i < 10; i++) {
    addAll(queue, wg, chunk.subarray(0, 100 + 65536))
    queue.flush()
  }
  await tunnel.open()
  t.equal(numbersOf(decode(wg, tunnel.writes).sink.datagrams.slice(0, 3)).length, 3)
  t.ok(tunnel.writes.slice(1).every(({ buffer }) => buffer.byteLength < 200))
})

t.test('a write that throws takes nothing of what was gathered into the next', async (t) => {
  const { tunnel, queue } = setUp(wg)
  const write = tunnel.write
  addAll(queue, wg, frames(wg, [numbered(1)]))
  tunnel.write = () => { throw new Error('on purpose') }
  t.throws(() => queue.flush(), { message: 'on purpose' })
  tunnel.write = write
  addAll(queue, wg, frames(wg, [numbered(2)]))
  queue.flush()
  t.same(numbersOf(decode(wg, tunnel.writes).sink.datagrams), [2])
})
