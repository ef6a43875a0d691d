import { Duplex } from 'node:stream'
import t from 'tap'
import { holdReads } from '../../lib/internals/held-reads.ts'

/** A stream that counts how often it is asked for more. */
class Source extends Duplex {
  asked = 0
  readonly got: string[] = []

  constructor () {
    super({ read: () => { this.asked++ } })
    this.on('data', (chunk: Buffer) => this.got.push(String(chunk)))
  }
}

const settled = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))

t.test('what comes out of a paused stream waits in one piece, and is read first when it flows again', async (t) => {
  const source = new Source()
  source.push('a')
  await settled()
  holdReads(source)
  holdReads(source)
  const { readableLength } = source
  for (const byte of ['b', 'c', 'd']) t.equal(source.push(Buffer.from(byte)), false, 'no more is asked for')
  t.equal(source.readableLength, readableLength)
  source.resume()
  source.push(Buffer.from('e'))
  await settled()
  t.same(source.got, ['a', 'bcd', 'e'])
})

t.test('a stream that flows again is asked for more, whether something has waited or not', async (t) => {
  for (const waits of [true, false]) {
    const source = new Source()
    await settled()
    holdReads(source)
    if (waits) source.push(Buffer.from('a'))
    else source.push(Buffer.alloc(0))
    await settled()
    const { asked } = source
    source.resume()
    await settled()
    t.same(source.got, waits ? ['a'] : [])
    source.push(Buffer.from('b'))
    await settled()
    t.ok(source.asked > asked)
    t.equal(source.got.join(''), waits ? 'ab' : 'b')
  }
})

t.test('the end comes behind what has waited, when the stream flows again', async (t) => {
  const source = new Source()
  let hasEnded = false
  source.on('end', () => { hasEnded = true })
  holdReads(source)
  source.push(Buffer.from('a'))
  source.push(null)
  await settled()
  t.same(source.got, [])
  t.notOk(hasEnded)
  source.resume()
  await settled()
  await settled()
  t.same(source.got, ['a'])
  t.ok(hasEnded)
})
