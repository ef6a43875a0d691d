import t from 'tap'
import { WaitingBytes } from '../../lib/util/waiting-bytes.ts'

t.test('gives back all bytes in one piece, however they came', async (t) => {
  const waiting = new WaitingBytes()
  const pieces = Array.from({ length: 5000 }, (_, index) => Buffer.alloc(index % 7, index & 255))
  for (const piece of pieces) waiting.add(piece)
  const whole = Buffer.concat(pieces)
  t.equal(waiting.length, whole.length)
  const taken = waiting.take()
  t.ok(taken.equals(whole))
  t.ok(taken.buffer.byteLength <= 2 * whole.length, 'memory is within twice of what waits')
  t.equal(waiting.length, 0)
  t.equal(waiting.take().length, 0)
})

t.test('does not hold the memory that bytes came in', async (t) => {
  const waiting = new WaitingBytes()
  const chunk = Buffer.from('hello')
  waiting.add(chunk)
  chunk.fill(0)
  t.equal(waiting.take().toString(), 'hello')
})
