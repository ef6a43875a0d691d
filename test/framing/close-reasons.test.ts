import t from 'tap'
import { closeReasonOf, closeReasons, printable } from '../../lib/framing/close-reasons.ts'

t.test('the codes are those of the wire format', async (t) => {
  t.same(Object.fromEntries(Object.entries(closeReasons).map(([name, { code }]) => [name, code])), {
    'protocol-error': 1,
    unstamped: 2,
    replaced: 3,
    idle: 4,
    'write-deadline': 5,
    disconnected: 6,
    shutdown: 7,
    'target-failed': 8,
    limit: 9
  })
})

t.test('a client comes back by itself only where that makes sense', async (t) => {
  const final = Object.entries(closeReasons).filter(([, { retry }]) => !retry).map(([name]) => name)
  t.same(final, ['protocol-error', 'unstamped', 'replaced', 'disconnected'])
})

t.test('a code leads back to its name, an unknown one to none', async (t) => {
  for (const [name, { code }] of Object.entries(closeReasons)) t.equal(closeReasonOf(code), name)
  for (const code of [0, 10, 65535]) t.equal(closeReasonOf(code), undefined)
})

t.test('text from the other side loses its control characters and nothing else', async (t) => {
  t.equal(printable('a\r\nb\tc\0d\u001b[31me\u007ff\u0080g\u009fh'), 'abcd[31mefgh')
  t.equal(printable('a\u2028b\u2029c\u202ed\u2066e\u200ff\u061cg'), 'abcdefg')
  t.equal(printable('Grüße, 世界 🦀 ~ \u00a0'), 'Grüße, 世界 🦀 ~ \u00a0')
})
