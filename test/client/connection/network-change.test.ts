import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import os from 'node:os'
import { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { connect, UdpSidecar, type SidecarOptions } from '../../../lib/client/index.ts'
import { framesServer } from '../../helpers/fake-http2-relay.ts'
import { fakeRelay, refuse, type FakeRelay } from '../../helpers/fake-relay.ts'
import { freePort } from '../../helpers/ports.ts'

// What a sidecar does by itself when its network changes. Real interfaces: test/network.

const ADDRESS = '192.0.2.1'

/** Sets what this machine's addresses are. */
function machine (t: Test, ...addresses: string[]): { addresses: string[] } {
  const set = { addresses }
  t.intercept(os, 'networkInterfaces', { value: () => ({ eth0: set.addresses.map((address) => ({ address })) }) })
  return set
}

/** Connections to the relay that say they come from ADDRESS. */
function fromAddress (relay: { port: number }): () => Duplex {
  return () => Object.defineProperty(connectTcp(relay.port, '127.0.0.1'), 'localAddress', { value: ADDRESS })
}

function started (t: Test, relay: FakeRelay, options: Partial<SidecarOptions> = {}): UdpSidecar {
  const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', ...options })
  t.teardown(() => sidecar.close())
  sidecar.start().catch(() => {})
  return sidecar
}

for (const framing of ['wg', 'len16'] as const) {
  t.test(`${framing}: a connection whose local address is gone is lost, and there is another soon`, async (t) => {
    const interfaces = machine(t, ADDRESS)
    const relay = await fakeRelay(t)
    const sidecar = started(t, relay, { createConnection: fromAddress(relay), framings: [framing] })
    await once(sidecar, 'connect')
    interfaces.addresses = ['192.0.2.2']
    const [{ reason, text, retryIn }] = await once(sidecar, 'lost')
    t.same([reason, text], ['lost', `this machine does not have the address ${ADDRESS} any more`])
    t.ok(retryIn <= 500, `${retryIn} ms`)
    await once(sidecar, 'connect')
  })
}

t.test('HTTP/2: the connection that tunnels share is lost, and with it each of them', async (t) => {
  const interfaces = machine(t, ADDRESS)
  const { url, peers } = await framesServer(t)
  const port = Number(new URL(url).port)
  const opening = connect(url, { httpVersion: 2, framings: ['wg'], createConnection: fromAddress({ port }) })
  const peer = await peers.next()
  await peer.frames.next()
  peer.accept(1, { 'spanza-framing': 'wg' })
  const connection = await opening
  interfaces.addresses = []
  const [{ reason, text }] = await once(connection, 'close')
  t.match([reason, text], ['lost', /this machine does not have the address 192\.0\.2\.1 any more/])
})

t.test('HTTP/2: a silent path is found by PING, also for framings without pings', async (t) => {
  const { url, peers } = await framesServer(t)
  const opening = connect(url, { httpVersion: 2, framings: ['len16'] })
  const peer = await peers.next()
  await peer.frames.next()
  peer.accept(1, { 'spanza-framing': 'len16' })
  const connection = await opening
  peer.answersPings = false
  connection.send(Buffer.from('into the void'))
  const begin = performance.now()
  const [{ reason, text }] = await once(connection, 'close')
  t.match([reason, text], ['lost', /no answer to a ping within 300\d ms/])
  t.ok(performance.now() - begin >= 4900)
  t.equal(peer.pings.all.length, 1)
})

t.test('HTTP/2: a session that is destroyed and not closed yet is not pinged, which would throw', async (t) => {
  const { url, peers } = await framesServer(t)
  // Its end takes as long as it likes.
  let release = () => {}
  const createConnection = () => {
    const socket = connectTcp(Number(new URL(url).port), '127.0.0.1')
    socket.on('error', () => {})
    const transport = new Duplex({
      read () {},
      write (chunk, _encoding, callback) { socket.write(chunk, callback) },
      destroy (error, callback) {
        release = () => {
          socket.destroy()
          callback(error)
        }
      }
    })
    socket.on('data', (chunk) => transport.push(chunk))
    return transport
  }
  const opening = connect(url, { httpVersion: 2, framings: ['wg'], createConnection, keepaliveInterval: 20 })
  const peer = await peers.next()
  await peer.frames.next()
  peer.accept(1, { 'spanza-framing': 'wg' })
  const connection = await opening
  const thrown: Error[] = []
  const onThrow = (error: Error) => thrown.push(error)
  process.on('uncaughtException', onThrow)
  t.teardown(() => process.off('uncaughtException', onThrow))
  connection.close()
  await new Promise((resolve) => setTimeout(resolve, 2500)) // its stream and its connection have 1 s each to end
  release()
  t.same(thrown, [])
})

t.test('a wait for a relay that is down ends when this machine has another address', async (t) => {
  const interfaces = machine(t)
  const relay = await fakeRelay(t)
  const sidecar = started(t, relay, { createConnection: fromAddress({ port: await freePort() }) })
  const now = performance.now.bind(performance)
  let shift = 0
  t.intercept(performance, 'now', { value: () => now() + shift })
  await once(sidecar, 'retry')
  shift = 600_000 // an outage of ten minutes, so that the wait is a long one
  t.ok((await once(sidecar, 'retry'))[0].retryIn >= 8000)
  interfaces.addresses = [ADDRESS]
  const begin = now()
  await once(sidecar, 'retry')
  t.ok(now() - begin < 4000)
})

t.test('a wait that the relay asked for does not', async (t) => {
  const interfaces = machine(t)
  const relay = await fakeRelay(t, { answers: [refuse('503 Full', { code: 'FST_RELAY_HUB_FULL' }, 'Retry-After: 3\r\n')] })
  const sidecar = started(t, relay)
  const [{ retryIn }] = await once(sidecar, 'retry')
  const begin = performance.now()
  interfaces.addresses = [ADDRESS]
  await once(sidecar, 'connect')
  t.ok(performance.now() - begin >= retryIn - 50)
})

t.test('an attempt that hangs when the addresses change is begun anew', async (t) => {
  const interfaces = machine(t)
  const relay = await fakeRelay(t, { answers: [() => {}] })
  const sidecar = started(t, relay)
  await relay.requests.next()
  interfaces.addresses = [ADDRESS]
  t.match(await once(sidecar, 'retry'), [{ error: { code: 'FST_RELAY_CONNECT' }, text: /addresses changed/ }])
  await once(sidecar, 'connect')
})

t.test('three cuts after the same silence are told of', async (t) => {
  const now = performance.now.bind(performance)
  let shift = 0
  t.intercept(performance, 'now', { value: () => now() + shift })
  const relay = await fakeRelay(t)
  const sidecar = started(t, relay)
  const lost: unknown[] = []
  sidecar.on('lost', (info) => lost.push(info))
  for (let round = 0; round < 3; round++) {
    await once(sidecar, 'connect')
    const tunnel = await relay.tunnels.next()
    const cut = once(sidecar, 'lost')
    shift += 3500
    tunnel.socket.destroy()
    await cut
  }
  t.same(lost.map((info) => 'cutAfterSilence' in (info as object)), [false, false, true])
  const { cutAfterSilence } = lost[2] as { cutAfterSilence: number }
  t.ok(cutAfterSilence >= 3000 && cutAfterSilence < 5000, `${cutAfterSilence} ms`)
})
