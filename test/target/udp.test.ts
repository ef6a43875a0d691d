import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import t, { type Test } from 'tap'
import { UdpTarget } from '../../lib/target/udp-target.ts'
import { CLOSING } from '../../lib/framing/wg.ts'
import { startApp, testRefusal } from '../helpers/relay-app.ts'
import { upgradeText } from '../helpers/raw-client.ts'
import { openTunnel, until, type TunnelOptions } from '../helpers/tunnel.ts'
import { udpPeer } from '../helpers/udp-peer.ts'
import { initiation, response, transportData } from '../helpers/wireguard-messages.ts'

/** A UDP server that remembers who sent what. */
async function startServer (t: Test, address = '127.0.0.1') {
  const peer = await udpPeer(t, address)
  const senders: number[] = []
  peer.socket.on('message', (_datagram, { port, address }) => {
    senders.push(port)
    peer.to({ port, address, family: '' })
  })
  return { peer, senders, target: `udp://${peer.address}` }
}

const kinds: Array<[string, TunnelOptions]> = [
  ['wg', { framing: 'wg' }],
  ['len16', { framing: 'len16' }],
  ['UoTLV/1', { protocol: 'UoTLV/1', framing: 'len16' }]
]

t.test('datagrams go to the target and back', async (t) => {
  for (const address of ['127.0.0.1', '::1']) {
    for (const [name, options] of kinds) {
      await t.test(`${name}, to ${address}`, async (t) => {
        const { peer, target } = await startServer(t, address)
        const app = await startApp(t, (app) => app.relay('/relay', { target }))
        const tunnel = await openTunnel(t, app, { ...options, path: '/relay' })
        const datagrams = [initiation(1), response(2, 1), transportData(2, 32), transportData(2, 1452), Buffer.from('any other'), Buffer.alloc(1), Buffer.alloc(2048, 7)]
        tunnel.send(...datagrams)
        for (const datagram of datagrams) t.same(await peer.received.next(), datagram)
        for (const datagram of datagrams) await peer.send(datagram)
        for (const datagram of datagrams) t.same(await tunnel.datagrams.next(), datagram)
        t.match(app.relayHub.stats(), {
          datagramsIn: 7, datagramsOut: 7, targetDatagramsIn: 7, targetDatagramsOut: 7, drops: { 'too-large': 0, 'udp-error': 0 }
        })
        t.match(app.relayHub.peers(), [{ channel: { kind: 'target' }, datagramsIn: 7, datagramsOut: 7 }])
      })
    }
  }
})

t.test('each tunnel has a port of its own, which is closed with it', async (t) => {
  const { peer, senders, target } = await startServer(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target, identify: () => ({ id: 'the same' }) }))
  const a = await openTunnel(t, app, { path: '/relay' })
  const b = await openTunnel(t, app, { path: '/relay' })
  a.send(Buffer.from('a'))
  await peer.received.next()
  b.send(Buffer.from('b'))
  await peer.received.next()
  t.not(senders[0], senders[1])
  await peer.send('for b')
  t.equal(String(await b.datagrams.next()), 'for b')
  const left = once(app.relayHub, 'detach')
  b.socket.end()
  await left
  // The port can be had again.
  const socket = createSocket('udp4')
  await new Promise<void>((resolve) => socket.bind(senders[1], '127.0.0.1', resolve))
  socket.close()
  a.send(Buffer.from('still there'))
  t.equal(String(await peer.received.next()), 'still there')
})

t.test('a target may be closed twice', async (t) => {
  const { peer } = await startServer(t)
  const target = await UdpTarget.open({ host: '127.0.0.1', port: peer.socket.address().port }, 1000)
  target.close()
  target.close()
})

t.test('what does not come from the target does not arrive', async (t) => {
  const { peer, senders, target } = await startServer(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const tunnel = await openTunnel(t, app, { path: '/relay' })
  tunnel.send(Buffer.from('hello'))
  await peer.received.next()
  const stranger = await udpPeer(t)
  await stranger.to({ port: senders[0]!, address: '127.0.0.1', family: '' }).send('forged')
  await peer.send('true')
  t.equal(String(await tunnel.datagrams.next()), 'true')
  t.equal(app.relayHub.stats().targetDatagramsIn, 1)
})

t.test('datagrams of the target that cannot pass are dropped and counted', async (t) => {
  const { peer, target } = await startServer(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }), { relay: { maxPacketSize: 1500 } })
  const tunnel = await openTunnel(t, app, { path: '/relay' })
  tunnel.send(Buffer.from('hello'))
  await peer.received.next()
  await peer.send(Buffer.alloc(1501))
  await peer.send('')
  await peer.send(Buffer.alloc(1500))
  t.equal((await tunnel.datagrams.next()).length, 1500)
  t.match(app.relayHub.stats(), { targetDatagramsIn: 3, datagramsOut: 1, drops: { 'too-large': 1, empty: 1 } })
})

t.test('a target that is away is no end, and is counted', async (t) => {
  const { peer, target } = await startServer(t)
  const { port } = peer.socket.address()
  peer.socket.close()
  t.teardown(() => { peer.socket.close = () => peer.socket })
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const tunnel = await openTunnel(t, app, { path: '/relay' })
  tunnel.send(Buffer.from('nobody there'))
  await until(() => {
    const { targetErrors, drops } = app.relayHub.stats()
    return (targetErrors['ECONNREFUSED'] ?? 0) + drops['udp-error'] > 0
  })
  const back = createSocket('udp4')
  t.teardown(() => back.close())
  await new Promise<void>((resolve) => back.bind(port, '127.0.0.1', resolve))
  const arrived = once(back, 'message')
  // The first one may still meet the old error.
  tunnel.send(Buffer.from('back again'))
  tunnel.send(Buffer.from('back again'))
  t.equal(String((await arrived)[0]), 'back again')
})

t.test('a flood of the target cannot fill the memory for a client that does not read', async (t) => {
  const { peer, target } = await startServer(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const tunnel = await openTunnel(t, app, { path: '/relay', reads: false })
  tunnel.socket.pause()
  tunnel.send(Buffer.from('hello'))
  await peer.received.next()
  const datagram = transportData(1, 1400)
  while (app.relayHub.stats().drops['queue-full'] < 1000) {
    for (let i = 0; i < 50; i++) await peer.send(datagram)
    // Sending alone would never let the loop come round to receiving.
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { targetDatagramsIn, datagramsOut, drops } = app.relayHub.stats()
  const waiting = targetDatagramsIn - datagramsOut - drops['queue-full']
  t.ok(waiting > 0 && waiting <= 512, `${waiting} wait`)
})

t.test('a bare tunnel has no place on a UDP target', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay', { target: 'udp://127.0.0.1:9' })
    app.relay('/wg', { target: 'udp://127.0.0.1:9', framings: ['wg', 'raw'] })
  })
  const refused = { statusCode: 400, code: 'FST_RELAY_FRAMING' } as const
  await testRefusal(t, app, upgradeText('/relay'), { ...refused, message: 'No framing in common: asked for "raw", this route has: wg, len16' })
  await testRefusal(t, app, upgradeText('/relay', { headers: { 'Spanza-Framing': 'raw' } }), refused)
  await testRefusal(t, app, upgradeText('/wg', { headers: { 'Spanza-Framing': 'len16, raw' } }), { ...refused, message: /this route has: wg$/ })
})

t.test('a name that cannot be resolved is a 502', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { target: 'udp://name.invalid:9' }))
  await testRefusal(t, app, upgradeText('/relay', { headers: { 'Spanza-Framing': 'wg' } }), { statusCode: 502, code: 'FST_RELAY_TARGET_UNREACHABLE' })
})

t.test('a silent tunnel is closed', async (t) => {
  const { target } = await startServer(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }), { relay: { idleTimeout: 50, keepaliveInterval: 20, keepaliveTimeout: 50 } })
  for (const [name, options] of kinds) {
    const left = once(app.relayHub, 'detach')
    const tunnel = await openTunnel(t, app, { ...options, path: '/relay' })
    t.match((await left)[1], { reason: 'idle' }, name)
    await tunnel.closed
  }
})

t.test('closing the app tells the client to come back', async (t) => {
  const { target } = await startServer(t)
  const app = await startApp(t, (app) => app.relay('/relay', { target }))
  const tunnel = await openTunnel(t, app, { path: '/relay' })
  await Promise.all([app.close(), tunnel.closed])
  t.ok(tunnel.controls.all.some(({ type }) => type === CLOSING))
})
