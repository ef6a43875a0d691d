import t from 'tap'
import { Backoff, BACKOFF_MAX_MS, BACKOFF_MIN_MS } from '../../lib/client/backoff.ts'

t.test('waits from 0.25 s to 16 s, doubling, with jitter', async (t) => {
  const firsts = new Set<number>()
  for (let round = 0; round < 200; round++) {
    const backoff = new Backoff()
    let limit = 500
    for (let attempt = 0; attempt < 10; attempt++) {
      const wait = backoff.next()
      if (attempt === 0) firsts.add(wait)
      if (wait < limit / 2 || wait > limit) t.fail(`attempt ${attempt}: ${wait} ms`)
      limit = Math.min(limit * 2, BACKOFF_MAX_MS)
    }
  }
  t.ok(firsts.size > 20, 'the waits differ')
  t.same([BACKOFF_MIN_MS, BACKOFF_MAX_MS], [250, 16_000])
})

t.test('begins again after a reset', async (t) => {
  const backoff = new Backoff()
  for (let attempt = 0; attempt < 8; attempt++) backoff.next()
  backoff.reset()
  t.ok(backoff.next() <= 500)
})
