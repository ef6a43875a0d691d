import t from 'tap'
import { printable } from '../../lib/util/printable.ts'

t.test('text from the other side loses its control characters and nothing else', async (t) => {
  t.equal(printable('a\r\nb\tc\0d\u001b[31me\u007ff\u0080g\u009fh'), 'abcd[31mefgh')
  t.equal(printable('a\u2028b\u2029c\u202ed\u2066e\u200ff\u061cg'), 'abcdefg')
  t.equal(printable('Grüße, 世界 🦀 ~ \u00a0'), 'Grüße, 世界 🦀 ~ \u00a0')
})

t.test('text from the other side is cut', async (t) => {
  t.equal(printable('x'.repeat(256)), 'x'.repeat(256))
  t.equal(printable('x'.repeat(257)), `${'x'.repeat(255)}…`)
  t.equal(printable('x'.repeat(100_000), 10), `${'x'.repeat(9)}…`)
  t.equal(printable('🦀🦀🦀', 4), '🦀…', 'not within a character')
})
