import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { watchSilence } from '../../lib/cli/silence.ts'
import { UdpSidecar } from '../../lib/client/index.ts'
import { fakeRelay } from '../helpers/fake-relay.ts'
import { udpPeer } from '../helpers/udp-peer.ts'

/** Calls what waits for this many milliseconds only when it is told to. */
const AFTER = 123_456

/** A sidecar with a connection, what is written about its silence, and the end of the wait for that. */
async function setup (t: Test, listen = '127.0.0.1:0') {
  const relay = await fakeRelay(t)
  const waits = new Map<object, () => void>()
  const { setTimeout: set, clearTimeout: clear } = globalThis
  const wait = (then: () => void, ms: number): object => {
    if (ms !== AFTER) return set(then, ms)
    const timer = {}
    waits.set(timer, then)
    return timer
  }
  t.intercept(globalThis, 'setTimeout', { value: wait })
  t.intercept(globalThis, 'clearTimeout', { value: (timer: NodeJS.Timeout) => { if (!waits.delete(timer)) clear(timer) } })
  const sidecar = new UdpSidecar({ url: relay.url, listen, forward: '127.0.0.1:9' })
  t.teardown(() => sidecar.close())
  const lines: string[] = []
  const end = watchSilence(sidecar, AFTER, (line) => lines.push(line))
  const connected = once(sidecar, 'connect')
  const address = await sidecar.start()
  await connected
  return { relay, sidecar, lines, end, address, waits, pass: () => waits.forEach((then) => then()) }
}

const text = ({ address, port }: AddressInfo) => `WireGuard has sent nothing so far: is it up, with Endpoint = ${address}:${port}? ` +
  'Without traffic of its own it sends only with PersistentKeepalive = 25'

t.test('WireGuard that has sent nothing, because its Endpoint leads elsewhere, is told of once', async (t) => {
  const { relay, sidecar, lines, address, waits, pass } = await setup(t)
  t.same(lines, [])
  pass()
  t.same(lines, [text(address)])
  const again = once(sidecar, 'connect')
  ;(await relay.tunnels.next()).socket.destroy()
  await again
  t.equal(waits.size, 1, 'not for each connection')
})

t.test('an address that stands for all is no Endpoint', async (t) => {
  const { lines, address: { port }, pass } = await setup(t, '0.0.0.0:0')
  pass()
  t.match(lines, [`is it up, with port ${port} of this machine as its Endpoint? `])
})

t.test('nothing is said when it has sent something, or when the sidecar has ended', async (t) => {
  const sent = await setup(t)
  const peer = (await udpPeer(t)).to(sent.address)
  await peer.send('hello')
  await (await sent.relay.tunnels.next()).datagrams.next()
  sent.pass()
  t.same(sent.lines, [])
  sent.end()
  t.equal(sent.waits.size, 0)
})
