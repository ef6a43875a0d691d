import t from 'tap'
import { Clock } from '../../lib/hub/clock.ts'

t.test('the time is read once per tick', async (t) => {
  let time = 1000
  t.intercept(performance, 'now', { value: () => time })
  const clock = new Clock(100)
  t.equal(clock.now, 0)
  time += 90
  t.equal(clock.now, 0)
  clock.tick()
  t.equal(clock.now, 90)
  time += 110
  clock.tick()
  t.equal(clock.now, 200)
})

t.test('a long standstill of the process counts as three ticks', async (t) => {
  let time = 0
  t.intercept(performance, 'now', { value: () => time })
  const clock = new Clock(100)
  time += 3_600_000
  clock.tick()
  t.equal(clock.now, 300)
  time += 100
  clock.tick()
  t.equal(clock.now, 400)
})
