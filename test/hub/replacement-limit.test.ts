import t from 'tap'
import { ReplacementLimit } from '../../lib/hub/replacement-limit.ts'

const tooOften = { code: 'FST_RELAY_REPLACED_TOO_OFTEN', statusCode: 429 }

t.test('five replacements of an identity in a minute are allowed, the sixth is not', async (t) => {
  const limit = new ReplacementLimit()
  for (let i = 0; i < 5; i++) limit.count('a', i * 1000)
  t.throws(() => limit.count('a', 5000), tooOften)
  t.doesNotThrow(() => limit.count('b', 5000), 'identities are counted apart')
})

t.test('a refused one does not prolong the wait', async (t) => {
  const limit = new ReplacementLimit()
  for (let i = 0; i < 5; i++) limit.count('a', 0)
  for (let i = 0; i < 100; i++) t.throws(() => limit.count('a', i * 100), tooOften)
  t.doesNotThrow(() => limit.count('a', 12_001))
})

t.test('sweeping forgets nobody too early', async (t) => {
  const limit = new ReplacementLimit()
  for (let i = 0; i < 5; i++) limit.count('a', 0)
  limit.sweep(1000)
  t.throws(() => limit.count('a', 1000), tooOften)
  limit.sweep(60_001)
  for (let i = 0; i < 5; i++) limit.count('a', 60_001)
  t.throws(() => limit.count('a', 60_001), tooOften)
})
