import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import { SpanStatusCode } from '@opentelemetry/api'
import t, { type Test } from 'tap'
import type { RelayDiagnostics } from '../../lib/server/diagnostics.ts'
import { detached, startRelay } from '../helpers/relay.ts'
import { askForTunnel, openTunnel, settle, until } from '../helpers/tunnel.ts'
import { transportData } from '../helpers/wireguard-messages.ts'

/** The messages on a channel until the test ends, and the names they came with. */
function subscribed<Name extends keyof RelayDiagnostics> (t: Test, name: Name): Array<RelayDiagnostics[Name]> {
  const messages: Array<RelayDiagnostics[Name]> = []
  const listener = (message: unknown): void => { messages.push(message as RelayDiagnostics[Name]) }
  subscribe(name, listener)
  t.teardown(() => unsubscribe(name, listener))
  return messages
}

t.test('attach, detach and refuse are published with the hub they come from', async (t) => {
  const attached = subscribed(t, 'fastify-spanza-relay:attach')
  const left = subscribed(t, 'fastify-spanza-relay:detach')
  const refused = subscribed(t, 'fastify-spanza-relay:refuse')
  const [app, other] = [await startRelay(t, { maxPeers: 1 }), await startRelay(t)]
  const tunnel = await openTunnel(t, app, { id: 'a', context: 'for the app' })
  await openTunnel(t, other, { id: 'b' })
  t.match(attached, [
    { peer: { id: 'a', channel: { scope: '/relay/:network', name: 'home' }, context: 'for the app', bytesIn: 0 } },
    { peer: { id: 'b' } }
  ])
  t.equal(attached[0]!.hub, app.relayHub)
  t.equal(attached[1]!.hub, other.relayHub)

  await askForTunnel(t, app, { id: 'c', path: '/relay/home?token=secret' })
  await until(() => refused.length === 1)
  const { hub, ...refusal } = refused[0]!
  t.equal(hub, app.relayHub)
  t.same(refusal, {
    statusCode: 503, code: 'FST_RELAY_HUB_FULL', message: 'The relay is full (maxPeers: 1)', address: '127.0.0.1', path: '/relay/:network'
  })

  tunnel.send(transportData(1, 100))
  await settle(tunnel)
  const leaving = detached(app, 'a')
  tunnel.socket.end()
  const info = await leaving
  t.equal(left.length, 1)
  t.match(left, [{ peer: { id: 'a', datagramsIn: 1, drops: 1 }, ...info, reason: 'ended', text: 'the client ended the tunnel' }])
  t.equal(left[0]!.hub, app.relayHub)
})

t.test('comes in the order of what happened, also where a listener of the hub causes more', async (t) => {
  const app = await startRelay(t)
  const order: string[] = []
  for (const name of ['attach', 'detach'] as const) {
    const listener = (): void => { order.push(name) }
    subscribe(`fastify-spanza-relay:${name}`, listener)
    t.teardown(() => unsubscribe(`fastify-spanza-relay:${name}`, listener))
  }
  app.relayHub.once('attach', ({ id, channel }) => app.relayHub.disconnect({ id, channel: channel.name }))
  const tunnel = await openTunnel(t, app, { id: 'a' })
  await tunnel.closed
  t.same(order, ['attach', 'detach'])
})

t.test('the spans of the example in docs/metrics.md', async (t) => {
  const exporter = new InMemorySpanExporter()
  const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
  provider.register()
  t.teardown(() => provider.shutdown())
  // @ts-expect-error has no types
  await import('./tunnel-spans.js')
  const app = await startRelay(t, { maxPeers: 1 })
  const tunnel = await openTunnel(t, app, { id: 'a' })
  await askForTunnel(t, app, { id: 'b' })
  await until(() => exporter.getFinishedSpans().length === 1)
  const leaving = detached(app, 'a')
  tunnel.socket.end()
  const { duration } = await leaving
  const [refusal, whole] = exporter.getFinishedSpans()
  t.match(refusal, {
    name: 'relay refusal',
    status: { code: SpanStatusCode.ERROR, message: 'The relay is full (maxPeers: 1)' },
    attributes: { 'http.response.status_code': 503, 'error.type': 'FST_RELAY_HUB_FULL', 'http.route': '/relay/:network' }
  })
  t.match(whole, {
    name: 'relay tunnel',
    parentSpanContext: undefined,
    attributes: { 'relay.route': '/relay/:network', 'relay.channel': 'home', 'relay.peer': 'a', 'relay.bytes_in': Number, 'relay.reason': 'ended' }
  })
  const [seconds, nanoseconds] = whole!.duration
  t.equal(Math.round(seconds * 1000 + nanoseconds / 1e6), duration)
})
