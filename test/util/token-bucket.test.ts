import t from 'tap'
import { TokenBucket } from '../../lib/util/token-bucket.ts'

t.test('gives a burst at once, then the rate', (t) => {
  const bucket = new TokenBucket(10, 3, 1000)
  const taken = (now: number): number => {
    let count = 0
    while (bucket.take(now)) count++
    return count
  }
  t.ok(bucket.isFull(1000))
  t.equal(taken(1000), 3)
  t.notOk(bucket.isFull(1000))
  t.equal(taken(1099), 0)
  t.equal(taken(1100), 1)
  t.equal(taken(1350), 2)
  t.notOk(bucket.isFull(1590))
  t.ok(bucket.isFull(1610))
  t.equal(taken(100_000), 3, 'never more than the burst')
  t.end()
})
