import t, { type Test } from 'tap'
import { reportText } from '../../lib/cli/report.ts'
import { UdpSidecar } from '../../lib/client/index.ts'

/** A sidecar that is never started, and the lines about it. */
function reported (t: Test): { sidecar: UdpSidecar, lines: string[] } {
  const sidecar = new UdpSidecar({ url: 'https://relay.example.com/' })
  t.teardown(() => sidecar.close())
  const lines: string[] = []
  reportText(sidecar, 'https://relay.example.com/', (line) => lines.push(line))
  return { sidecar, lines }
}

t.test('tells each event in one line', async (t) => {
  const { sidecar, lines } = reported(t)
  sidecar.emit('listening', { address: '::1', port: 51821, family: 'IPv6' })
  sidecar.emit('connect', { framing: 'wg', url: 'https://relay.example.com/' })
  sidecar.emit('notice', { code: 2, name: 'alone', text: 'you are alone in the network home' })
  sidecar.emit('drain', { afterMs: 2500 })
  sidecar.emit('lost', { reason: 'drained', text: '', retryIn: 0 })
  sidecar.emit('lost', { reason: 'shutdown', text: 'update', retryIn: 312 })
  sidecar.emit('lost', { reason: 'idle', text: '', retryIn: 312 })
  t.same(lines, [
    'Listening on [::1]:51821 (UDP), connecting to https://relay.example.com/',
    'Connected to https://relay.example.com/ (framing wg)',
    'The relay says: you are alone in the network home',
    'The relay asks to connect anew in 2.5 s',
    'Disconnected as the relay asked; connecting anew in 0.0 s',
    'Connection lost: the relay is shutting down (update); next attempt in 0.3 s',
    'Connection lost: nothing was heard for too long; next attempt in 0.3 s'
  ])
})

t.test('suggests a keepalive when silent connections are cut', async (t) => {
  const { sidecar, lines } = reported(t)
  sidecar.emit('lost', { reason: 'lost', text: '', retryIn: 0, cutAfterSilence: 15_030 })
  t.equal(lines[1], 'The last three connections were cut after 15 s of silence: try --keepalive 10')
})

t.test('repeats the same failure only every 16 s, or after a connection', async (t) => {
  const time = { now: 100_000 }
  t.intercept(performance, 'now', { value: () => time.now })
  const { sidecar, lines } = reported(t)
  const fail = (text: string) => sidecar.emit('retry', { error: new Error(text), text, retryIn: 1000 })
  fail('refused')
  fail('refused')
  t.equal(lines.length, 1)
  fail('timeout')
  t.equal(lines.length, 2)
  time.now += 15_999
  fail('timeout')
  t.equal(lines.length, 2)
  time.now += 1
  fail('timeout')
  t.equal(lines.length, 3)
  sidecar.emit('connect', { framing: 'wg', url: '' })
  fail('timeout')
  t.equal(lines.length, 5)
  t.equal(lines[4], 'timeout; next attempt in 1.0 s')
})
