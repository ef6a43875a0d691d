import type { EventEmitter } from 'node:events'
import Fastify from 'fastify'
import { Registry } from 'prom-client'
import t from 'tap'
import { proxyProtocol } from '../../lib/entrance/proxy-protocol/proxy-protocol.ts'
import { refusedConnections } from '../../lib/entrance/proxy-protocol/header-reader.ts'
import { dropReasons } from '../../lib/hub/counters.ts'
import type { RelayHub } from '../../lib/index.ts'
import { relayMetrics } from '../../lib/metrics/index.ts'
import { closeReasons, closingCodeOf, webSocketCodeOf, type DetachReason } from '../../lib/tunnel/close-reasons.ts'
import { namesIn, readPage, tablesOf } from '../helpers/markdown.ts'
import { startRelay } from '../helpers/relay.ts'
import { openTunnel } from '../helpers/tunnel.ts'

// The tables of reasons, codes and metrics in the pages have each of the code's, and no others.

const operating = readPage('docs/operating.md')
const metrics = readPage('docs/metrics.md')

const detachReasons = Object.keys({
  'protocol-error': true,
  unstamped: true,
  replaced: true,
  idle: true,
  'write-deadline': true,
  disconnected: true,
  shutdown: true,
  'target-failed': true,
  limit: true,
  ended: true,
  lost: true,
  'pair-timeout': true,
  'partner-lost': true
} satisfies Record<DetachReason, true>) as DetachReason[]

/** The names in the first column. */
function namesOf (rows: string[][]): string[] {
  return rows.flatMap(([cell]) => namesIn(cell!))
}

t.test('drop reasons in docs/operating.md', (t) => {
  t.same(namesOf(tablesOf(operating, 'drop reason').flat()).sort(), [...dropReasons].sort())
  t.end()
})

t.test('close reasons in docs/operating.md, with their codes and what a sidecar does', (t) => {
  const rows = tablesOf(operating, 'close reason').flat()
  t.same(namesOf(rows).sort(), [...detachReasons].sort())
  for (const [cell, , wg, webSocket, sidecar] of rows) {
    const [reason] = namesIn(cell!) as [DetachReason]
    t.equal(wg, String(closingCodeOf(reason) ?? '–'), `${reason} in wg`)
    t.equal(webSocket, String(webSocketCodeOf(reason)), `${reason} on a WebSocket`)
    if (reason in closeReasons) {
      t.equal(sidecar!.startsWith('reconnects'), closeReasons[reason as keyof typeof closeReasons].retry, `a sidecar after ${reason}`)
    }
  }
  t.end()
})

t.test('close codes in docs/websockets.md', (t) => {
  const documented = tablesOf(readPage('docs/websockets.md'), 'code', 'reason').flat().flatMap(([codes, reasons]) =>
    codes!.split(', ').flatMap((code) => namesIn(reasons!).map((reason) => `${code} ${reason}`)))
  const ofReasons = detachReasons.filter((reason) => reason !== 'unstamped').map((reason) => `${webSocketCodeOf(reason)} ${reason}`)
  // The codes that RFC 6455 has for what cannot be read.
  const ofFaults = [1003, 1007, 1009].map((code) => `${code} protocol-error`)
  t.same(documented.sort(), [...ofReasons, ...ofFaults].sort())
  t.end()
})

t.test('metrics in docs/metrics.md', async (t) => {
  const app = await startRelay(t)
  const register = new Registry()
  relayMetrics(app.relayHub, register)
  const families = (await register.getMetricsAsJSON()).map(({ name, type }) => `${name} ${type}`)
  const documented = tablesOf(metrics, '`spanza_relay_…`').flat().map(([name, type]) => `spanza_relay_${namesIn(name!)[0]} ${type}`)
  t.same(documented.sort(), families.sort())
})

t.test('reasons to refuse a connection in docs/metrics.md', async (t) => {
  const { server } = Fastify({ serverFactory: proxyProtocol({ from: ['127.0.0.1'] }) })
  t.same(namesOf(tablesOf(metrics, 'reason', 'the connection').flat()).sort(), Object.keys(refusedConnections(server)).sort())
})

t.test('the members of relayHub in docs/operating.md', (t) => {
  const members: Record<Exclude<keyof RelayHub, keyof EventEmitter>, true> = { options: true, isClosing: true, peers: true, channels: true, stats: true, disconnect: true }
  t.same(namesOf(tablesOf(operating, 'member').flat()).map((name) => name.replace(/\(.*/, '')).sort(), Object.keys(members).sort())
  t.end()
})

t.test('the fields of a peer and of stats() in docs/operating.md', async (t) => {
  const app = await startRelay(t)
  const peers: object[] = []
  app.relayHub.on('attach', (peer) => peers.push(peer))
  await openTunnel(t, app)
  const fields = namesOf(tablesOf(operating, 'field', 'meaning').flat())
  t.same(fields.sort(), Object.keys(peers[0]!).sort())
  t.same(namesOf(tablesOf(operating, 'field', 'counts').flat()).sort(), Object.keys(app.relayHub.stats()).sort())
})
