import os from 'node:os'
import { mock } from 'node:test'
import t, { type Test } from 'tap'
import { Liveness } from '../../../lib/client/connection/liveness.ts'

interface Watched {
  liveness: Liveness
  /** What happened: `ask`, or why it is dead, with the seconds since the beginning. */
  events: Array<[string, number]>
  /** Lets time pass in steps of 100 ms. */
  pass: (ms: number) => Promise<void>
  /** Lets no timer fire for so long, as when the process is stopped; then all that are due. */
  stop: (ms: number) => Promise<void>
}

function watched (t: Test, { isAnswered = true, interval = 25_000, timeout = 75_000 } = {}): Watched {
  const time = { now: 1_000_000 }
  t.intercept(performance, 'now', { value: () => time.now })
  t.intercept(Date, 'now', { value: () => time.now })
  t.intercept(Math, 'random', { value: () => 0.5 })
  t.intercept(os, 'networkInterfaces', { value: () => ({}) })
  mock.timers.enable({ apis: ['setTimeout', 'setInterval'] })
  const events: Array<[string, number]> = []
  const begin = time.now
  const note = (what: string) => { events.push([what, (time.now - begin) / 1000]) }
  const liveness = new Liveness({
    isAnswered,
    interval,
    timeout,
    ask: () => {
      note('ask')
      liveness.sent(12)
    },
    onDead: (text = 'silent') => {
      note(text)
      liveness.stop()
    }
  })
  t.teardown(() => {
    liveness.stop()
    mock.timers.reset()
  })
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  return {
    liveness,
    events,
    async pass (ms) {
      for (let passed = 0; passed < ms; passed += 100) {
        time.now += 100
        mock.timers.tick(100)
        await turn()
      }
    },
    async stop (ms) {
      time.now += ms
      mock.timers.tick(1000)
      await turn()
    }
  }
}

t.test('an idle tunnel whose pings are answered has one every 25 s, and no more', async (t) => {
  const { liveness, events, pass } = watched(t)
  for (let second = 0; second < 250; second++) {
    const asked = events.length
    await pass(1000)
    if (events.length > asked) {
      liveness.heard()
      liveness.active()
    }
  }
  t.equal(events.length, 10)
  t.ok(events.every(([what]) => what === 'ask'))
})

t.test('something was sent and nothing comes back: a ping after 2 s to 3 s, the end 3 s later', async (t) => {
  const { liveness, events, pass } = watched(t)
  await pass(10_400)
  liveness.sent(100)
  await pass(10_000)
  t.same(events, [['ask', 13], ['no answer to a ping within 3001 ms', 16.1]])
})

t.test('what comes ends the question, be it the answer or not', async (t) => {
  const { liveness, events, pass } = watched(t)
  liveness.sent(100)
  await pass(4900)
  liveness.heard()
  liveness.active()
  await pass(20_000)
  t.same(events, [['ask', 2]])
})

t.test('traffic both ways asks nothing', async (t) => {
  const { liveness, events, pass } = watched(t)
  for (let i = 0; i < 100; i++) {
    liveness.sent(1400)
    await pass(1500)
    liveness.heard()
    liveness.active()
  }
  t.same(events, [])
})

t.test('much under way has the time to leave, and each bit that leaves puts the question off', async (t) => {
  const { liveness, events, pass } = watched(t)
  liveness.sent(500_000)
  await pass(8000)
  t.same(events, [['ask', 2]], 'half a megabyte takes 4 s')
  liveness.unblocked()
  liveness.sent(100)
  await pass(1500)
  t.same(events.length, 1)
  await pass(30_000)
  t.match(events[2], [/^no answer/, Number])
})

t.test('after a suspension asks at once, and gives up 2 s later', async (t) => {
  const { events, pass, stop } = watched(t)
  await pass(3000)
  await stop(300_000)
  await pass(5000)
  t.same(events, [['ask', 303], ['no answer to a ping within 2000 ms', 305]])
})

t.test('after a suspension only the answer counts: other bytes may have waited', async (t) => {
  const first = watched(t)
  await first.stop(300_000)
  first.liveness.heard()
  await first.pass(3000)
  t.same(first.events[1], ['no answer to a ping within 2000 ms', 302])
})

t.test('an answer after a suspension, and all is well', async (t) => {
  const { liveness, events, pass, stop } = watched(t)
  await stop(300_000)
  liveness.answered()
  await pass(20_000)
  t.same(events, [['ask', 300]])
})

t.test('where no ping is answered, a suspension as long as the timeout is the end, a shorter one is not', async (t) => {
  const { events, pass, stop } = watched(t, { isAnswered: false })
  await stop(30_000)
  await pass(3000)
  t.same(events, [['ask', 30]])
  await stop(80_000)
  await pass(200)
  t.match(events[1], ['silent', Number])
})

t.test('where no ping is answered, only the timeout ends a silent tunnel', async (t) => {
  const { liveness, events, pass } = watched(t, { isAnswered: false })
  liveness.sent(100)
  await pass(80_000)
  t.same(events.at(-1), ['silent', 75])
})

t.test('what waits to be read is read before a tunnel counts as dead', async (t) => {
  const { liveness, events, pass } = watched(t)
  liveness.sent(100)
  await pass(4900)
  setImmediate(() => liveness.heard()) // before the watch's own
  await pass(100)
  await pass(5000)
  t.same(events, [['ask', 2]])
})
