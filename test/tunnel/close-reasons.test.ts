import t from 'tap'
import { closeReasonOf, closeReasons } from '../../lib/tunnel/close-reasons.ts'

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

t.test('a WebSocket is told by the code that its registry has, or one for private use', async (t) => {
  t.same(Object.fromEntries(Object.entries(closeReasons).map(([name, { webSocket }]) => [name, webSocket])), {
    'protocol-error': 1002,
    unstamped: 1002,
    replaced: 4003,
    idle: 4004,
    'write-deadline': 4005,
    disconnected: 4006,
    shutdown: 1001,
    'target-failed': 1011,
    limit: 1013
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
