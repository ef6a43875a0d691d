import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { HubOptions } from '../../lib/index.ts'
import { NOTICE } from '../../lib/framing/wg.ts'
import { startApp } from '../helpers/relay-app.ts'
import { detached } from '../helpers/relay.ts'
import { askForTunnel, openTunnel, settle, until, type Tunnel } from '../helpers/tunnel.ts'
import { initiation, transportData } from '../helpers/wireguard-messages.ts'

const INFO = 30
const WARN = 40
const ERROR = 50

interface Line {
  level: number
  msg: string
  [field: string]: unknown
}

/** A relay, and what it logs, without the lines that Fastify writes about requests. Their ids are `req-1` and so on. */
async function startLogging (t: Test, relay: HubOptions = {}): Promise<{ app: FastifyInstance, log: Line[] }> {
  const log: Line[] = []
  const stream = {
    write: (text: string) => {
      const line = JSON.parse(text) as Line
      if (!('reqId' in line) || /^(?:relay|WireGuard) /.test(line.msg)) log.push(line)
    }
  }
  const app = await startApp(t, (app) => app.relay('/relay/:network', { identify: ({ headers }) => ({ id: headers['x-id'] as string }) }), {
    server: { logger: { stream } },
    relay: { clientHandshakesPerSecond: 10_000, ...relay }
  })
  // Where Fastify listens.
  log.length = 0
  return { app, log }
}

/** A line as docs/operating.md documents it: without what pino and the process add. */
function documented ({ time, pid, hostname, ...line }: Line): object {
  return line
}

t.test('one line for each attach, detach and refusal', async (t) => {
  const { app, log } = await startLogging(t, { maxPeers: 1 })
  const tunnel = await openTunnel(t, app, { id: 'a' })
  await askForTunnel(t, app, { id: 'b', path: '/relay/home?token=secret' })
  await until(() => log.length === 2)
  tunnel.send(transportData(1, 100))
  await settle(tunnel)
  const leaving = detached(app, 'a')
  tunnel.socket.end()
  const { duration } = await leaving
  const peer = { reqId: 'req-1', peer: 'a', channel: 'home', scope: '/relay/:network', address: '127.0.0.1' }
  const [{ bytesIn, bytesOut }] = log.slice(2) as [Line]
  t.ok(Number(bytesIn) >= 100 && Number(bytesOut) > 0, 'framing included')
  t.same(log.map(documented), [
    { level: INFO, msg: 'relay peer attached', ...peer, framing: 'wg', protocol: 'spanza', httpVersion: '1.1' },
    {
      level: INFO,
      msg: 'relay handshake refused',
      reqId: 'req-2',
      refusal: { statusCode: 503, code: 'FST_RELAY_HUB_FULL', message: 'The relay is full (maxPeers: 1)', address: '127.0.0.1', path: '/relay/:network' }
    },
    { level: INFO, msg: 'relay peer detached', ...peer, reason: 'ended', text: 'the client ended the tunnel', duration, bytesIn, bytesOut, drops: 1 }
  ])
})

t.test('handshakes that fail are one line, whatever many peers do', async (t) => {
  const { app, log } = await startLogging(t)
  const time = { shift: 0 }
  const now = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => now() + time.shift })
  const lines = (): Line[] => log.filter(({ msg }) => msg === 'WireGuard handshakes of a relay peer fail')
  const isWritten = (peer: string): boolean => lines().some((line) => line['peer'] === peer)

  /** Begins handshakes until the clock, of which a tick takes three seconds now, has gone on enough. */
  async function failUntil (tunnels: Tunnel[], condition: () => boolean): Promise<void> {
    while (!condition()) {
      for (const tunnel of tunnels) tunnel.send(initiation(1))
      await settle(...tunnels)
      time.shift += 1000
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  const first = await openTunnel(t, app, { id: 'first', path: '/relay/first' })
  await failUntil([first], () => isWritten('first'))
  const { since, count, ...line } = documented(lines()[0]!) as { since: string, count: number }
  t.same(line, {
    level: WARN,
    msg: 'WireGuard handshakes of a relay peer fail',
    reqId: 'req-1',
    peer: 'first',
    channel: 'first',
    scope: '/relay/:network',
    address: '127.0.0.1',
    fault: 'alone',
    text: "no other peer is in its channel: is the other device's sidecar running, and does identify() give it the same channel?",
    lastHandshake: null,
    suppressed: 0
  })
  t.ok(count >= 3 && Date.parse(since) < Date.now())

  const many = await Promise.all(Array.from({ length: 40 }, (_, i) => openTunnel(t, app, { id: `${i}`, path: `/relay/${i}` })))
  await failUntil(many, () => app.relayHub.stats().handshakeFaults['alone'] === 41)
  t.ok(lines().length < 41, `${lines().length} lines`)
  const last = await openTunnel(t, app, { id: 'last', path: '/relay/last' })
  await failUntil([last], () => isWritten('last'))
  t.equal(lines().reduce((sum, { suppressed }) => sum + 1 + Number(suppressed), 0), 42, 'those left out are counted')
  t.same(many.map((tunnel) => tunnel.controls.all.filter(({ type }) => type === NOTICE).length), many.map(() => 1), 'and told to the peers all the same')
})

t.test('a listener that throws each time is logged five times, then once a minute with how often it was not', async (t) => {
  const { app, log } = await startLogging(t)
  const errors = (): Line[] => log.filter(({ level }) => level === ERROR)
  const time = { shift: 0 }
  const now = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => now() + time.shift })
  app.relayHub.on('attach', () => { throw new Error('on attach') })
  app.relayHub.on('detach', async () => { throw new Error('on detach') })
  for (let i = 0; i < 8; i++) {
    await openTunnel(t, app, { id: String(i) })
    app.relayHub.disconnect({ channel: 'home', id: String(i) })
  }
  await until(() => errors().length === 10)
  const on = (event: string) => errors().filter((line) => line['event'] === event)
  t.match(on('attach'), Array.from({ length: 5 }, () => ({ msg: 'a listener of the relay hub threw', err: { message: 'on attach' }, suppressed: 0 })))
  t.equal(on('detach').length, 5, 'each event is counted on its own')

  time.shift = 60_000
  await openTunnel(t, app, { id: 'later' })
  await openTunnel(t, app, { id: 'at once' })
  time.shift = 120_000
  await openTunnel(t, app, { id: 'another minute later' })
  t.same(on('attach').map(({ suppressed }) => suppressed), [0, 0, 0, 0, 0, 3, 1])
})

t.test('what a hook refuses with is told in the line', async (t) => {
  const log: Line[] = []
  const app = await startApp(t, (app) => app.relay('/relay/:network', {
    onRequest: async () => { throw Object.assign(new Error('the token\n has expired'), { statusCode: 401, code: 'TOKEN_EXPIRED' }) }
  }), { server: { logger: { stream: { write: (text: string) => { log.push(JSON.parse(text) as Line) } } } } })
  await askForTunnel(t, app, { path: '/relay/home' })
  await until(() => log.some(({ msg }) => msg === 'relay handshake refused'))
  t.match(log.find(({ msg }) => msg === 'relay handshake refused'), {
    reqId: 'req-1', refusal: { statusCode: 401, code: 'TOKEN_EXPIRED', message: 'the token has expired', path: '/relay/:network' }
  })
  t.same(app.relayHub.stats().refused, { 401: 1 }, 'counted by the status: the codes of apps are without number')
})

t.test('no refusal of ours has a stack in the log', async (t) => {
  const log: string[] = []
  const app = await startApp(t, (app) => app.relay('/relay/:network'), {
    server: { logger: { stream: { write: (text: string) => { log.push(text) } } } }, relay: { maxPeers: 1 }
  })
  await app.inject('/relay/home')
  await openTunnel(t, app, { id: 'a' })
  await askForTunnel(t, app, { id: 'b', path: '/relay/home' })
  await until(() => log.some((line) => line.includes('FST_RELAY_HUB_FULL')))
  t.ok(log.some((line) => line.includes('FST_RELAY_UPGRADE_REQUIRED')))
  t.notOk(log.some((line) => line.includes('    at ')))
})

t.test('a request has one "request completed": when its tunnel has ended', async (t) => {
  const log: Line[] = []
  const app = await startApp(t, (app) => app.relay('/relay/:network'), {
    server: { logger: { stream: { write: (text: string) => { log.push(JSON.parse(text) as Line) } } } }
  })
  const completed = (): Line[] => log.filter(({ msg }) => msg === 'request completed')
  const tunnel = await openTunnel(t, app, {})
  t.same(completed(), [])
  tunnel.socket.end()
  await until(() => completed().length > 0)
  await app.close()
  t.match(completed(), [{ reqId: 'req-1', res: { statusCode: 101 } }])
})
