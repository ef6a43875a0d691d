import t from 'tap'
import type { FramingFault } from '../../lib/framing/framing.ts'
import { StreamDecoder } from '../../lib/framing/stream-decoder.ts'
import { byteByByte } from '../helpers/sink.ts'
import { SeededRandom } from '../helpers/random.ts'

const SKIP = 's'.charCodeAt(0)
const FAULT = 'f'.charCodeAt(0)

/** Frames of a letter, a digit that counts what follows, and that much text: `s` asks to skip, `f` is wrong. */
class TextDecoder extends StreamDecoder {
  readonly taken: string[] = []
  readonly places: Array<{ buffer: Buffer, position: number, end: number }> = []
  skipped = 0

  constructor () {
    super(2)
  }

  protected override measure (buffer: Buffer, position: number): number {
    const size = 2 + buffer[position + 1]! - 48
    if (buffer[position] === FAULT) {
      this.fault = { reason: 'protocol-error', text: 'an f' }
      return 0
    }
    if (buffer[position] !== SKIP) return size
    this.skipped++
    return -size
  }

  protected override take (buffer: Buffer, position: number, end: number): void {
    this.taken.push(buffer.toString('latin1', position, end))
    this.places.push({ buffer, position, end })
  }
}

function push (decoder: TextDecoder, ...chunks: Array<string | Buffer>): FramingFault | undefined {
  for (const chunk of chunks) {
    const fault = decoder.push(Buffer.from(chunk))
    if (fault !== undefined) return fault
  }
}

t.test('whole frames are taken out of the chunk itself', async (t) => {
  const decoder = new TextDecoder()
  const chunk = Buffer.from('a3abcb0c1x')
  t.equal(decoder.push(chunk), undefined)
  t.same(decoder.taken, ['a3abc', 'b0', 'c1x'])
  t.ok(decoder.places.every(({ buffer }) => buffer === chunk))
})

t.test('a cut frame is put together in memory of exactly its size', async (t) => {
  const decoder = new TextDecoder()
  push(decoder, 'a9abc', 'def', 'ghib1x')
  t.same(decoder.taken, ['a9abcdefghi', 'b1x'])
  t.equal(decoder.places[0]!.buffer.buffer.byteLength, 11)
})

t.test('any cutting finds the same frames', async (t) => {
  const random = new SeededRandom()
  t.comment(`seed ${random.seed}`)
  for (let round = 0; round < 500; round++) {
    const frames = Array.from({ length: random.between(0, 8) }, () => {
      const length = random.below(10)
      return `${random.pick(['a', 's', 'b'])}${length}${'x'.repeat(length)}`
    })
    const bytes = Buffer.from(frames.join(''))
    for (const chunks of [byteByByte(bytes), random.chunks(bytes, 3), random.chunks(bytes, 20)]) {
      const decoder = new TextDecoder()
      push(decoder, ...chunks)
      const expected = frames.filter((frame) => !frame.startsWith('s'))
      if (decoder.taken.join() !== expected.join() || decoder.end() !== undefined) {
        t.same(decoder.taken, expected, `seed ${random.seed}, round ${round}`)
      }
      if (decoder.skipped !== frames.length - expected.length) t.fail(`each is measured once: seed ${random.seed}, round ${round}`)
    }
  }
  t.pass()
})

t.test('an end between frames is right, one inside a frame is a fault', async (t) => {
  for (const whole of ['', 'a0', 'a3abc', 's3abc', 'a3abcs2xx']) {
    const decoder = new TextDecoder()
    push(decoder, whole)
    t.equal(decoder.end(), undefined, whole)
  }
  for (const cut of ['a', 'a1', 'a3ab', 's', 's3', 's3ab', 'b0a']) {
    for (const chunks of [[cut], [...cut]]) {
      const decoder = new TextDecoder()
      push(decoder, ...chunks)
      t.same(decoder.end(), { reason: 'protocol-error', text: 'the stream ended inside a frame' }, cut)
    }
  }
})

t.test('after a fault nothing more is taken, wherever the header was cut', async (t) => {
  for (const chunks of [['a0f0b0'], ['a0f', '0b0'], ['a0', 'f', '0', 'b0'], ['s2xxa0f0b0']]) {
    const decoder = new TextDecoder()
    t.same(push(decoder, ...chunks), { reason: 'protocol-error', text: 'an f' })
    t.same(decoder.taken, ['a0'])
  }
})

t.test('empty chunks change nothing', async (t) => {
  const decoder = new TextDecoder()
  push(decoder, '', 'a', '', '3', '', 'ab', '', 'c', '')
  t.same(decoder.taken, ['a3abc'])
})
