import { PassThrough } from 'node:stream'
import type { WriteStream } from 'node:tty'
import t from 'tap'
import { LiveLine } from '../../lib/cli/live-line.ts'

/** Puts the cursor at the beginning of the line, and empties it. */
const ERASE = '\x1b[1G\x1b[2K'

function open (columns: number): { live: LiveLine, take: () => string } {
  const terminal = Object.assign(new PassThrough({ encoding: 'utf8' }), { columns })
  return { live: new LiveLine(terminal as unknown as WriteStream), take: () => terminal.read() ?? '' }
}

t.test('is drawn in the place of the one before', async (t) => {
  const { live, take } = open(80)
  live.show('one')
  t.equal(take(), 'one')
  live.show('two')
  t.equal(take(), `${ERASE}two`)
})

t.test('other lines go above it', async (t) => {
  const { live, take } = open(80)
  live.writeAbove('first')
  t.equal(take(), 'first\n', 'there is nothing to erase yet')
  live.show('live')
  take()
  live.writeAbove('second')
  t.equal(take(), `${ERASE}second\nlive`)
})

t.test('ends without a trace', async (t) => {
  const { live, take } = open(80)
  live.show('live')
  take()
  live.end()
  t.equal(take(), ERASE)
  live.end()
  live.writeAbove('last')
  t.equal(take(), 'last\n')
})

t.test('never goes on in the next line, also where the terminal does not tell its width', async (t) => {
  const narrow = open(10)
  narrow.live.show('0123456789abcdef')
  t.equal(narrow.take(), '012345678')
  const unknown = open(0)
  unknown.live.show('x'.repeat(100))
  t.equal(unknown.take().length, 79)
})
