import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import t, { type Test } from 'tap'
import { isFree } from '../helpers/ports.ts'
import { UdpSidecar, type SidecarOptions } from '../../lib/client/index.ts'
import { wg } from '../../lib/framing/wg.ts'
import { wireguardMessage } from '../helpers/datagrams.ts'
import { fakeRelay, refuse } from '../helpers/fake-relay.ts'
import { startApp } from '../helpers/relay-app.ts'
import { udpPeer } from '../helpers/udp-peer.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'

// A sidecar through many lives of its relay, and its own end in every state that it can be in.

const RESTARTS = 3

t.test('a sidecar finds its relay again, however often that is restarted', async (t) => {
  let port = 0
  const begin = async (t: Test) => {
    const app = await startApp(t, (app) => {
      app.relay('/relay/:network', { identify: ({ headers }) => ({ id: headers['x-id'] as string | undefined }) })
    }, { listen: { port } })
    port = (app.server.address() as AddressInfo).port
    return app
  }
  let app = await begin(t)
  const sidecar = new UdpSidecar({ url: `http://127.0.0.1:${port}/relay/home`, headers: { 'X-Id': 'sidecar' }, listen: '127.0.0.1:0' })
  t.teardown(() => sidecar.close())
  const connects: unknown[] = []
  const drains: unknown[] = []
  sidecar.on('connect', (info) => connects.push(info)).on('drain', (info) => drains.push(info))
  const peer = (await udpPeer(t)).to(await sidecar.start())
  for (let life = 1; life <= RESTARTS; life++) {
    await until(() => connects.length === life)
    const other = await openTunnel(t, app)
    await peer.send(`life ${life}`)
    t.equal(String(await other.datagrams.next()), `life ${life}`)
    other.send(Buffer.from(`back ${life}`))
    t.equal(String(await peer.received.next()), `back ${life}`)
    t.match(app.relayHub.stats(), { attached: 2, peers: 2 })
    await app.close()
    app = await begin(t)
  }
  await until(() => connects.length === RESTARTS + 1)
  t.equal(drains.length, RESTARTS, 'it was told each time')
  t.match(sidecar.stats, { datagramsIn: RESTARTS, datagramsOut: RESTARTS })
  t.equal(app.relayHub.stats().attached, 1)
})

interface Life {
  sidecar: UdpSidecar
  address: AddressInfo
}

async function startSidecar (t: Test, options: Partial<SidecarOptions> & { url: string }): Promise<Life> {
  const sidecar = new UdpSidecar({ listen: '127.0.0.1:0', ...options })
  t.teardown(() => sidecar.close())
  return { sidecar, address: await sidecar.start() }
}

/** A server whose connections are left to the test. */
async function silentServer (t: Test): Promise<{ port: number, connection: Promise<Socket> }> {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
  }).listen(0, '127.0.0.1')
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  await once(server, 'listening')
  const connection = once(server, 'connection').then(([socket]) => socket as Socket)
  return { port: (server.address() as AddressInfo).port, connection }
}

/** Brings a sidecar into a state. */
const states: Record<string, (t: Test) => Promise<Life>> = {
  'while its transport is being made': async (t) => {
    let made = false
    const createConnection = (): Duplex => {
      made = true
      return new Duplex({ read () {}, write () {} })
    }
    const life = await startSidecar(t, { url: 'http://127.0.0.1:1/', createConnection } as never)
    await until(() => made)
    return life
  },
  'while TLS is being agreed on': async (t) => {
    const { port, connection } = await silentServer(t)
    const life = await startSidecar(t, { url: `https://127.0.0.1:${port}/` })
    await once(await connection, 'data')
    return life
  },
  'while it waits for the answer': async (t) => {
    const { port, connection } = await silentServer(t)
    const life = await startSidecar(t, { url: `http://127.0.0.1:${port}/` })
    await once(await connection, 'data')
    return life
  },
  'in the middle of the answer': async (t) => {
    const { port, connection } = await silentServer(t)
    const life = await startSidecar(t, { url: `http://127.0.0.1:${port}/` })
    const socket = await connection
    await once(socket, 'data')
    await new Promise((resolve) => socket.write('HTTP/1.1 101 Switching', resolve))
    return life
  },
  'in the middle of a refusal': async (t) => {
    const { port, connection } = await silentServer(t)
    const life = await startSidecar(t, { url: `http://127.0.0.1:${port}/` })
    const socket = await connection
    await once(socket, 'data')
    await new Promise((resolve) => socket.write('HTTP/1.1 503 Service Unavailable\r\nContent-Length: 100\r\n\r\n{', resolve))
    return life
  },
  'while connected': async (t) => {
    const relay = await fakeRelay(t)
    const life = await startSidecar(t, { url: relay.url })
    await once(life.sidecar, 'connect')
    return life
  },
  'while it waits to follow a drain': async (t) => {
    const relay = await fakeRelay(t)
    const life = await startSidecar(t, { url: relay.url })
    const draining = once(life.sidecar, 'drain')
    const { socket } = await relay.tunnels.next()
    socket.write(wg.drain(60_000)!)
    await draining
    return life
  },
  'while it waits for another attempt, with datagrams bridged': async (t) => {
    const relay = await fakeRelay(t, { answers: [refuse('503 A', {}, 'Retry-After: 60\r\n')] })
    const life = await startSidecar(t, { url: relay.url })
    await once(life.sidecar, 'retry')
    const peer = (await udpPeer(t)).to(life.address)
    await peer.send(wireguardMessage(1))
    await peer.send(wireguardMessage(1))
    await until(() => life.sidecar.stats.drops.outage === 1)
    return life
  },
  'right after its connection broke': async (t) => {
    const relay = await fakeRelay(t)
    const life = await startSidecar(t, { url: relay.url })
    const lost = once(life.sidecar, 'lost')
    const { socket } = await relay.tunnels.next()
    socket.resetAndDestroy()
    await lost
    return life
  }
}

function handles (): string[] {
  return process.getActiveResourcesInfo().filter((name) => /^(?:TCPSocket|TLS|UDP|Timeout)/.test(name)).sort()
}

t.test('close() ends a sidecar', async (t) => {
  await until(() => !handles().includes('UDPWrap'))
  const before = handles()
  for (const [name, bringAbout] of Object.entries(states)) {
    await t.test(name, async (t) => {
      await t.test('and nothing is told, or left', async (t) => {
        const { sidecar, address } = await bringAbout(t)
        const told: string[] = []
        for (const event of ['connect', 'lost', 'retry', 'stop'] as const) sidecar.on(event, () => told.push(event))
        await Promise.all([sidecar.close(), sidecar.close()])
        t.equal(await isFree(address), true)
        await sidecar.close()
        t.same(told, [])
      })
      await until(() => handles().length <= before.length)
      t.same(handles(), before, 'no socket and no timer')
    })
  }
})

t.test('close() from within its own events', async (t) => {
  for (const event of ['listening', 'connect', 'drain', 'lost', 'stop'] as const) {
    await t.test(event, async (t) => {
      const relay = await fakeRelay(t)
      const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0' })
      const closed = new Promise<void>((resolve) => sidecar.once(event, () => { sidecar.close().then(resolve) }))
      const address = await sidecar.start()
      if (event === 'drain') (await relay.tunnels.next()).socket.write(wg.drain(0)!)
      if (event === 'lost') (await relay.tunnels.next()).socket.destroy()
      if (event === 'stop') (await relay.tunnels.next()).socket.end(wg.closing(6, '')!)
      await closed
      t.equal(await isFree(address), true)
    })
  }
})
