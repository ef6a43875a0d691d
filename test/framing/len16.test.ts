import t from 'tap'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { assortedDatagrams, wireguardMessage } from '../helpers/datagrams.ts'
import { frames } from '../helpers/fake-relay.ts'
import { SeededRandom } from '../helpers/random.ts'
import { byteByByte, decode, Sink } from '../helpers/sink.ts'

t.test('a length of two bytes goes before each datagram', async (t) => {
  t.same(frames(len16, [Buffer.from('abc'), Buffer.from([0])]), Buffer.from([0, 3, 0x61, 0x62, 0x63, 0, 1, 0]))
  t.same(frames(len16, [Buffer.alloc(0x1234)]).subarray(0, 2), Buffer.from([0x12, 0x34]))
})

t.test('datagrams of every kind and size come out as they went in, however the bytes are cut', async (t) => {
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  const datagrams = assortedDatagrams()
  const bytes = frames(len16, datagrams)
  for (const chunks of [[bytes], byteByByte(bytes), random.chunks(bytes, 5), random.chunks(bytes, 3000), random.chunks(bytes, 65536)]) {
    const { sink, fault } = decode(len16, chunks)
    t.equal(fault, undefined)
    t.ok(sink.datagrams.every((datagram, index) => datagram.equals(datagrams[index]!)), `seed ${random.seed}`)
    t.equal(sink.datagrams.length, datagrams.length)
  }
})

t.test('a length of zero is a keepalive, also one that is cut', async (t) => {
  const bytes = Buffer.concat([len16.keepalive(), frames(len16, [Buffer.from('x')]), len16.keepalive()])
  for (const chunks of [[bytes], byteByByte(bytes)]) {
    t.same(decode(len16, chunks).sink.found, ['keepalive', 'datagram 1', 'keepalive'])
  }
  t.same(len16.keepalive(), Buffer.from([0, 0]))
})

t.test('a keepalive needs nobody who listens for it', async (t) => {
  const decoder = len16.createDecoder({ datagram: () => {}, tooLarge: () => {} }, { maxPacketSize: 100 })
  t.equal(decoder.push(len16.keepalive()), undefined)
})

t.test('a datagram above the limit is passed over, and the next one is found', async (t) => {
  const datagrams = [100, 101, 65535, 1].map((size) => Buffer.alloc(size, size))
  const bytes = frames(len16, datagrams)
  for (const chunks of [[bytes], byteByByte(bytes), [bytes.subarray(0, 300), bytes.subarray(300)]]) {
    const { sink, fault } = decode(len16, chunks, 100)
    t.equal(fault, undefined)
    t.same(sink.found, ['datagram 100', 'too-large', 'too-large', 'datagram 1'])
  }
})

t.test('what is passed over is held nowhere', async (t) => {
  const sink = new Sink()
  const decoder = len16.createDecoder(sink, { maxPacketSize: 100 })
  const chunk = Buffer.alloc(65536, 0xff)
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 1000; i++) decoder.push(chunk)
  t.ok(process.memoryUsage().arrayBuffers - before < 1e6)
  t.ok(sink.found.length > 990)
})

t.test('an end inside a frame is a fault', async (t) => {
  const bytes = frames(len16, [Buffer.from('abc')])
  for (let length = 1; length < bytes.length; length++) {
    t.match(decode(len16, [bytes.subarray(0, length)]).fault, { reason: 'protocol-error', text: /inside a frame/ })
  }
})

t.test('the length that a message carried on a wg tunnel does not get into the datagram', async (t) => {
  const message = wireguardMessage(4, 200)
  const stamped = frames(wg, [message])
  const untouched = Buffer.from(stamped)
  const target = Buffer.alloc(202)
  t.equal(len16.encode(target, 0, stamped, 0, 200, true), 202)
  t.same(target.subarray(2), message)
  t.same(stamped, untouched, 'the source is not written to')
})

t.test('it has no closing and no drain frames', async (t) => {
  t.equal(len16.closing(1, 'text'), undefined)
  t.equal(len16.drain(1), undefined)
})
