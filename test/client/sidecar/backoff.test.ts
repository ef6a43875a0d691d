import t from 'tap'
import { Backoff, BACKOFF_MAX_MS, BACKOFF_MIN_MS } from '../../../lib/client/sidecar/backoff.ts'

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

t.test('while the relay is down, the wait is 0.5 s and a tenth of the outage at most', async (t) => {
  const time = { now: 1000 }
  t.intercept(performance, 'now', { value: () => time.now })
  for (const [outage, longest] of [[0, 500], [2000, 700], [20_000, 2500], [155_000, 16_000], [10_000_000, 16_000]] as const) {
    const backoff = new Backoff()
    time.now = 1000
    backoff.next('down')
    time.now += outage
    const waits = Array.from({ length: 200 }, () => backoff.next('down'))
    t.ok(waits.every((wait) => wait >= longest / 2 && wait <= longest), `${outage} ms: from ${Math.min(...waits)} to ${Math.max(...waits)} ms`)
    t.ok(new Set(waits).size > 20, 'the waits differ')
  }
})

t.test('what a failed attempt took is part of the wait while the relay is down', async (t) => {
  const time = { now: 1000 }
  t.intercept(performance, 'now', { value: () => time.now })
  const backoff = new Backoff()
  backoff.next('down')
  time.now += 100_000
  t.ok(backoff.next('down', 10_000) <= 500)
})

t.test('without a network the wait does not grow, and makes no other wait longer', async (t) => {
  const backoff = new Backoff()
  for (let attempt = 0; attempt < 100; attempt++) {
    const wait = backoff.next('no-network')
    if (wait < 500 || wait > 1000) t.fail(`${wait} ms`)
  }
  t.ok(backoff.next('refusing') <= 500)
})
