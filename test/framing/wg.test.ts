import { randomBytes } from 'node:crypto'
import t from 'tap'
import { len16 } from '../../lib/framing/len16.ts'
import type { Decoder } from '../../lib/framing/framing.ts'
import { CLOSING, DRAIN, NOTICE, PING, PONG, pong, readClosing, readDrain, readNotice, wg } from '../../lib/framing/wg.ts'
// @ts-expect-error plain JavaScript
import { WgDecoder } from '../fixtures/wg-decoder-0.1.0.js'
import { assortedDatagrams, wireguardMessage } from '../helpers/datagrams.ts'
import { frames } from '../helpers/fake-relay.ts'
import { SeededRandom } from '../helpers/random.ts'
import { byteByByte, decode, Sink } from '../helpers/sink.ts'

/** A frame header: a first byte and a 24-bit length. */
function header (type: number, length: number): Buffer {
  const bytes = Buffer.from([type, 0, 0, 0])
  bytes.writeUIntBE(length, 1, 3)
  return bytes
}

function control (type: number, length: number): Buffer {
  return Buffer.concat([header(type, length), randomBytes(length)])
}

t.test('what a datagram is on the tunnel', async (t) => {
  const rows: Array<[string, Buffer, Buffer]> = []
  for (const [type, size, name] of [[1, 148, 'an initiation'], [2, 92, 'a response'], [3, 64, 'a cookie reply']] as const) {
    const message = wireguardMessage(type)
    rows.push([`${name}: itself`, message, message])
    const longer = wireguardMessage(type, size + 1)
    rows.push([`${name} that is too long: escaped`, longer, Buffer.concat([header(0, size + 1), longer])])
    const shorter = wireguardMessage(type, size - 1)
    rows.push([`${name} that is too short: escaped`, shorter, Buffer.concat([header(0, size - 1), shorter])])
    const reserved = Buffer.from(message)
    reserved[3] = 1
    rows.push([`${name} with a reserved byte in use: escaped`, reserved, Buffer.concat([header(0, size), reserved])])
  }
  for (const size of [32, 33, 1452, 65535]) {
    const message = wireguardMessage(4, size)
    rows.push([`transport data of ${size} bytes: stamped`, message, Buffer.concat([header(4, size), message.subarray(4)])])
  }
  for (const datagram of [
    wireguardMessage(4, 31), Buffer.from([4, 0, 0, 0]), Buffer.from([4, 7, 7, 7, ...randomBytes(60)]),
    Buffer.from([0]), Buffer.from([0x83, 0, 0, 2, 0, 1]), Buffer.from([9, 0, 0, 0, ...randomBytes(100)]), Buffer.alloc(65535)
  ]) {
    rows.push([`${datagram.toString('hex', 0, 4)}, ${datagram.length} bytes: escaped`,
      datagram, Buffer.concat([header(0, datagram.length), datagram])])
  }
  for (const [name, datagram, bytes] of rows) {
    t.ok(frames(wg, [datagram]).equals(bytes), name)
    const { sink, fault } = decode(wg, [bytes])
    t.ok(fault === undefined && sink.datagrams.length === 1 && sink.datagrams[0]!.equals(datagram), `${name}, and back`)
  }
})

t.test('datagrams of every kind and size come out as they went in, however the bytes are cut', async (t) => {
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  const datagrams = assortedDatagrams()
  const bytes = frames(wg, datagrams)
  for (const chunks of [[bytes], byteByByte(bytes), random.chunks(bytes, 5), random.chunks(bytes, 3000), random.chunks(bytes, 65536)]) {
    const { sink, fault } = decode(wg, chunks)
    t.equal(fault, undefined)
    t.equal(sink.datagrams.length, datagrams.length)
    t.ok(sink.datagrams.every((datagram, index) => datagram.equals(datagrams[index]!)), `seed ${random.seed}`)
  }
})

t.test('any datagrams at all, WireGuard-like ones above all, survive any cutting', async (t) => {
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  for (let round = 0; round < 300; round++) {
    const datagrams = Array.from({ length: random.between(1, 12) }, () => {
      const size = random.pick([random.between(1, 40), 64, 92, 148, random.between(1, 3000)])
      const datagram = random.bytes(size)
      // Where the table's rows meet: a known first byte, reserved bytes mostly zero.
      datagram[0] = random.pick([0, 1, 2, 3, 4, 4, 5, 0x80, 0x83, 0xff])
      if (random.below(4) > 0) datagram.subarray(1, 4).fill(0)
      return datagram
    })
    const bytes = frames(wg, datagrams)
    const { sink, fault } = decode(wg, random.chunks(bytes, random.pick([1, 4, 50, 5000])))
    const isSame = sink.datagrams.length === datagrams.length && sink.datagrams.every((each, i) => each.equals(datagrams[i]!))
    if (fault !== undefined || !isSame) t.fail(`seed ${random.seed}, round ${round}`)
  }
  t.pass()
})

t.test('encoding copies and leaves the source as it was', async (t) => {
  const datagram = wireguardMessage(4, 100)
  const source = Buffer.concat([randomBytes(10), datagram, randomBytes(10)])
  const before = Buffer.from(source)
  const target = Buffer.alloc(200)
  t.equal(wg.encode(target, 7, source, 10, 110, false), 107)
  t.same(source, before)
  t.same(target.subarray(7, 11), header(4, 100))
  t.same(target.subarray(11, 107), datagram.subarray(4))
})

t.test('decoding leaves the chunk as it was', async (t) => {
  const chunk = frames(wg, assortedDatagrams())
  const before = Buffer.from(chunk)
  decode(wg, [chunk])
  t.ok(chunk.equals(before))
})

t.test('a message that was stamped on one tunnel is stamped on the next', async (t) => {
  const stamped = frames(wg, [wireguardMessage(4, 100)])
  const target = Buffer.alloc(100)
  t.equal(wg.encode(target, 0, stamped, 0, 100, true), 100)
  t.same(target, stamped)
})

t.test('an escaped message that looks like WireGuard is the datagram it looks like', async (t) => {
  for (const message of [wireguardMessage(1), wireguardMessage(2), wireguardMessage(3), wireguardMessage(4, 500)]) {
    const { sink, fault } = decode(wg, [Buffer.concat([header(0, message.length), message])])
    t.equal(fault, undefined)
    t.same(sink.datagrams, [message])
  }
})

t.test('transport data without a length gets an error of its own', async (t) => {
  t.match(decode(wg, [wireguardMessage(4, 100)]).fault, { reason: 'unstamped' })
  t.match(decode(wg, byteByByte(wireguardMessage(4, 100))).fault, { reason: 'unstamped' })
})

t.test('lengths below and above what there can be are errors', async (t) => {
  const wrong: Array<[Buffer, RegExp]> = [
    [header(4, 1), /transport data of 1 bytes/], [header(4, 31), /of 31 bytes/], [header(4, 65536), /of 65536 bytes/],
    [header(4, 0xffffff), /of 16777215 bytes/],
    [header(0, 0), /an escaped datagram of 0 bytes/], [header(0, 65536), /of 65536 bytes/], [header(0, 0xffffff), /of 16777215/]
  ]
  for (const [bytes, text] of wrong) {
    for (const chunks of [[bytes], byteByByte(bytes)]) {
      t.match(decode(wg, chunks).fault, { reason: 'protocol-error', text })
    }
  }
})

t.test('first bytes that mean nothing are errors, and so is a handshake message with its reserved bytes in use', async (t) => {
  for (let type = 5; type < 0x80; type++) t.match(decode(wg, [header(type, 0)]).fault, { reason: 'protocol-error' })
  for (const type of [1, 2, 3]) {
    for (const length of [1, 148, 256, 65536]) {
      t.match(decode(wg, [header(type, length)]).fault, { reason: 'protocol-error', text: /an unknown frame, 0[123]/ })
    }
  }
})

t.test('what came before an error is still delivered, what comes after it is not', async (t) => {
  const message = wireguardMessage(1)
  const { sink, fault } = decode(wg, [Buffer.concat([frames(wg, [message]), header(9, 0), frames(wg, [message])])])
  t.match(fault, { reason: 'protocol-error' })
  t.same(sink.datagrams, [message])
})

t.test('a datagram above the limit is passed over, and the next one is found', async (t) => {
  const datagrams = [
    wireguardMessage(4, 100), wireguardMessage(4, 101), wireguardMessage(4, 65535), Buffer.alloc(100), Buffer.alloc(101),
    Buffer.alloc(65535), wireguardMessage(1), wireguardMessage(2), wireguardMessage(3)
  ]
  const bytes = frames(wg, datagrams)
  for (const chunks of [[bytes], byteByByte(bytes), [bytes.subarray(0, 1000), bytes.subarray(1000)]]) {
    const { sink, fault } = decode(wg, chunks, 100)
    t.equal(fault, undefined)
    t.same(sink.found, [
      'datagram 100', 'too-large', 'too-large', 'datagram 100', 'too-large', 'too-large', 'too-large', 'datagram 92', 'datagram 64'
    ])
  }
})

t.test('what is passed over is held nowhere', async (t) => {
  const sink = new Sink()
  const decoder = wg.createDecoder(sink, { maxPacketSize: 100 })
  const frame = frames(wg, [Buffer.alloc(65535)])
  const before = process.memoryUsage().arrayBuffers
  for (let i = 0; i < 1000; i++) decoder.push(frame.subarray(0, 40_000)) ?? decoder.push(frame.subarray(40_000))
  t.ok(process.memoryUsage().arrayBuffers - before < 1e6)
  t.equal(sink.found.length, 1000)
})

t.test('control frames are found between datagrams', async (t) => {
  const bytes = Buffer.concat([wg.keepalive(), frames(wg, [wireguardMessage(3)]), wg.drain(500)!, wg.closing(7, 'bye')!])
  for (const chunks of [[bytes], byteByByte(bytes)]) {
    const { sink, fault } = decode(wg, chunks, 64)
    t.equal(fault, undefined)
    t.same(sink.found, ['control 80 8', 'datagram 64', 'control 82 4', 'control 83 5'])
  }
})

t.test('control frames of a wrong length are errors', async (t) => {
  const right: Record<number, Array<[number, number]>> = {
    [PING]: [[8, 8]], [PONG]: [[8, 8]], [DRAIN]: [[4, 4]], [CLOSING]: [[2, 258]], 0x84: [[0, 1024]], 0xff: [[0, 1024]]
  }
  for (const [type, ranges] of Object.entries(right)) {
    const isRight = (length: number): boolean => ranges.some(([first, last]) => length >= first && length <= last)
    for (const length of [0, 1, 2, 3, 4, 5, 7, 8, 9, 257, 258, 259, 1023, 1024, 1025, 65535, 65536, 0xffffff]) {
      const bytes = isRight(length) ? control(Number(type), length) : header(Number(type), length)
      const { fault } = decode(wg, [bytes])
      if (isRight(length)) t.equal(fault, undefined, `${Number(type).toString(16)} of ${length} bytes`)
      else t.match(fault, { reason: 'protocol-error', text: /^control frame 0x/ }, `${Number(type).toString(16)} of ${length} bytes`)
    }
  }
})

t.test('unknown control frames are skipped', async (t) => {
  const message = wireguardMessage(2)
  for (const type of [0x84, 0xa0, 0xff]) {
    const decoder = wg.createDecoder({ datagram: () => t.pass(), tooLarge: () => t.fail() }, { maxPacketSize: 2048 })
    t.equal(decoder.push(Buffer.concat([control(type, 1024), control(type, 0), frames(wg, [message])])), undefined)
  }
  t.end()
})

t.test('a ping differs from the one before, and its pong has the same eight bytes', async (t) => {
  const [first, second] = [wg.keepalive(), wg.keepalive()]
  t.same(first.subarray(0, 4), header(PING, 8))
  t.notOk(first.equals(second))
  t.same(pong(first, 4, 12), Buffer.concat([header(PONG, 8), first.subarray(4)]))
})

t.test('a drain frame says after how many milliseconds to connect anew', async (t) => {
  for (const [given, written] of [[0, 0], [1500, 1500], [0xffffffff, 0xffffffff], [1e12, 0xffffffff]] as const) {
    const frame = wg.drain(given)!
    t.same(frame.subarray(0, 4), header(DRAIN, 4))
    t.equal(readDrain(frame, 4), written)
  }
})

t.test('a closing frame has a code and a text', async (t) => {
  const frame = wg.closing(3, 'replaced')!
  t.same(frame, Buffer.concat([header(CLOSING, 10), Buffer.from([0, 3]), Buffer.from('replaced')]))
  t.same(readClosing(frame, 4, frame.length), { code: 3, text: 'replaced' })
  t.same(readClosing(wg.closing(65535, '')!, 4, 6), { code: 65535, text: '' })
})

t.test('a long closing text is cut between two characters', async (t) => {
  for (const [text, kept] of [
    ['x'.repeat(256), 256], ['x'.repeat(257), 256], ['€'.repeat(100), 255], ['x'.repeat(255) + 'é', 255],
    ['x'.repeat(253) + '🦀', 253], ['x'.repeat(252) + '🦀', 256], ['x'.repeat(1e6), 256]
  ] as const) {
    const frame = wg.closing(1, text)!
    t.equal(frame.length, 4 + 2 + kept)
    t.ok(text.startsWith(readClosing(frame, 4, frame.length).text))
    t.equal(decode(wg, [frame]).fault, undefined)
  }
})

t.test('a closing text loses its control characters before anyone sees it', async (t) => {
  const frame = wg.closing(1, 'a\r\nb\u001b[2Jc\u009bd')!
  t.equal(readClosing(frame, 4, frame.length).text, 'ab[2Jcd')
  t.equal(readClosing(Buffer.from([0, 1, 0xff, 0x41]), 0, 4).text, '\ufffdA', 'and bytes that are no UTF-8 harm nobody')
})

t.test('a notice frame has a code and a text, of at most 512 bytes and without control characters', async (t) => {
  const frame = wg.notice(5, 'a\r\nb\u001b[2Jc\u009bd\u202ee')!
  t.same(frame.subarray(0, 6), Buffer.concat([header(NOTICE, frame.length - 4), Buffer.from([0, 5])]))
  t.same(readNotice(frame, 4, frame.length), { code: 5, text: 'ab[2Jcde' })
  const long = wg.notice(1, '€'.repeat(1000))!
  t.equal(long.length, 4 + 2 + 510)
  t.equal(len16.notice(1, 'x'), undefined)
  t.same(readNotice(Buffer.from([0, 9]), 0, 2), { code: 9, text: '' })
  t.equal(readNotice(Buffer.from([1]), 0, 1), undefined, 'too short for a code')
  const fromAnother = Buffer.concat([Buffer.from([0, 1]), Buffer.alloc(1022, 'x')])
  t.equal(readNotice(fromAnother, 0, 1024)!.text.length, 512, 'cut, whatever another relay sends')
})

t.test('a client of version 0.1.0 passes over notice frames', async (t) => {
  const datagrams = [wireguardMessage(2), wireguardMessage(4, 500), Buffer.from('x')]
  const notices = [wg.notice(5, 'x'.repeat(1000))!, wg.notice(1, '')!]
  const bytes = Buffer.concat(datagrams.flatMap((datagram) => [...notices, frames(wg, [datagram])]))
  for (const chunks of [[bytes], byteByByte(bytes)]) {
    const found: number[] = []
    const controls = new Set<number>()
    const decoder: Decoder = new WgDecoder({
      datagram: (_chunk: Buffer, _frame: number, start: number, end: number) => found.push(end - start),
      tooLarge: () => t.fail(),
      control: (type: number) => controls.add(type)
    }, { maxPacketSize: 2048 })
    for (const chunk of chunks) t.equal(decoder.push(chunk), undefined)
    t.equal(decoder.end(), undefined)
    t.same(found, [92, 500, 1])
    t.same([...controls], [NOTICE], 'which its connection ignores: it knows four types')
  }
})

t.test('an end inside a frame is a fault', async (t) => {
  for (const bytes of [wireguardMessage(1), frames(wg, [Buffer.from('abc')]), frames(wg, [wireguardMessage(4, 60)]), wg.keepalive()]) {
    for (const length of [1, 3, 4, 5, bytes.length - 1].filter((length) => length < bytes.length)) {
      t.match(decode(wg, [bytes.subarray(0, length)]).fault, { reason: 'protocol-error', text: /inside a frame/ })
    }
    t.equal(decode(wg, [bytes]).fault, undefined)
  }
})

t.test('no bytes in any cutting make a decoder throw, or give a datagram that is too large', async (t) => {
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  const maxPacketSize = 300
  for (let round = 0; round < 3000; round++) {
    const valid = frames(wg, [wireguardMessage(1), wireguardMessage(4, 60), Buffer.from('x')])
    const bytes = random.below(2) === 0 ? random.bytes(random.between(1, 400)) : Buffer.concat([valid, wg.keepalive(), wg.closing(1, 'x')!])
    // Small numbers in the right places get further than noise.
    for (let i = random.below(8); i > 0; i--) bytes[random.below(bytes.length)] = random.pick([0, 1, 2, 3, 4, 0x80, 0x83, random.below(256)])
    for (const framing of [wg, len16]) {
      try {
        const whole = decode(framing, [bytes], maxPacketSize)
        const cut = decode(framing, random.chunks(bytes, random.pick([1, 3, 64])), maxPacketSize)
        if (whole.sink.found.join() !== cut.sink.found.join() || whole.fault?.text !== cut.fault?.text) t.fail('cutting makes a difference')
        if (whole.sink.datagrams.some(({ length }) => length > maxPacketSize || length === 0)) t.fail('a datagram of a wrong size')
      } catch (error) {
        t.error(error, `seed ${random.seed}, round ${round}, ${framing.name}: ${bytes.toString('hex')}`)
      }
    }
  }
  t.pass()
})
