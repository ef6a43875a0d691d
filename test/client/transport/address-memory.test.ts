import dns from 'node:dns'
import { once } from 'node:events'
import { syncBuiltinESMExports } from 'node:module'
import { connect as connectTcp, createServer, isIP, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import { dialled, lookupRelay, rememberAddress } from '../../../lib/client/transport/address-memory.ts'
import { connect, UdpSidecar, type ConnectOptions } from '../../../lib/client/index.ts'
import { fakeRelay } from '../../helpers/fake-relay.ts'
import { fakeHttp2Relay } from '../../helpers/fake-http2-relay.ts'
import { udpPeer } from '../../helpers/udp-peer.ts'

type Answer = (callback: (error: Error | null, addresses?: dns.LookupAddress[]) => void) => void

const gone: Answer = (callback) => callback(Object.assign(new Error('getaddrinfo EAI_AGAIN'), { code: 'EAI_AGAIN' }))
const never: Answer = () => {}
const at = (...addresses: string[]): Answer => (callback) => callback(null, addresses.map((address) => ({ address, family: 4 })))

/** A resolver that answers as it is told. */
function resolver (t: Test, answer: Answer): { answer: Answer, asked: number } {
  const set = { answer, asked: 0 }
  const { lookup } = dns
  const { lookup: promised } = dns.promises
  const fake = (host: string, options: { all?: boolean }, callback: (...args: unknown[]) => void) => {
    if (isIP(host) !== 0) return (lookup as (...args: unknown[]) => void)(...[host, options, callback].filter((value) => value !== undefined))
    set.asked++
    set.answer((error, found) => setImmediate(() => {
      if (error !== null) callback(error)
      else if (options.all === true) callback(null, found)
      else callback(null, found![0]!.address, found![0]!.family)
    }))
  }
  dns.lookup = fake as unknown as typeof dns.lookup
  dns.promises.lookup = ((host: string) => new Promise((resolve, reject) => {
    fake(host, {}, (error, address, family) => { if (error !== null) reject(error); else resolve({ address, family }) })
  })) as unknown as typeof dns.promises.lookup
  syncBuiltinESMExports()
  t.teardown(() => {
    dns.lookup = lookup
    dns.promises.lookup = promised
    syncBuiltinESMExports()
  })
  return set
}

function lookUp (host: string, options: dns.LookupOptions = { all: true }): Promise<unknown> {
  return new Promise((resolve, reject) => {
    lookupRelay(host, options, (error, ...found) => { if (error !== null) reject(error); else resolve(options.all === true ? found[0] : found) })
  })
}

/** Makes 127.0.0.1 the address of this host that worked. */
async function remember (host: string): Promise<void> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = dialled(connectTcp((server.address() as AddressInfo).port, '127.0.0.1'), host)
  await once(socket, 'connect')
  rememberAddress(socket)
  socket.destroy()
  server.close()
}

const KNOWN = { address: '127.0.0.1', family: 4 }

t.test('without an address that worked, what the resolver says is all', async (t) => {
  const names = resolver(t, gone)
  await t.rejects(lookUp('new.example'), { code: 'EAI_AGAIN' })
  names.answer = at('192.0.2.1', '192.0.2.2')
  t.same(await lookUp('new.example'), [{ address: '192.0.2.1', family: 4 }, { address: '192.0.2.2', family: 4 }])
  t.same(await lookUp('new.example', {}), ['192.0.2.1', 4])
})

t.test('the address that worked stands in for a resolver that fails or is slow, and comes last otherwise', async (t) => {
  const names = resolver(t, gone)
  await remember('known.example')
  t.same(await lookUp('known.example'), [KNOWN])
  t.same(await lookUp('known.example', {}), ['127.0.0.1', 4])
  names.answer = at('192.0.2.1')
  t.same(await lookUp('known.example'), [{ address: '192.0.2.1', family: 4 }, KNOWN])
  names.answer = at('127.0.0.1')
  t.same(await lookUp('known.example'), [KNOWN], 'not twice')
  names.answer = gone
  await t.rejects(lookUp('known.example', { all: true, family: 6 }), 'not for another family')
  names.answer = never
  t.same(await lookUp('known.example'), [KNOWN])
  const { asked } = names
  t.same(await lookUp('known.example'), [KNOWN])
  t.equal(names.asked, asked, 'a lookup that hangs is not doubled')
})

for (const httpVersion of [1, 2] as const) {
  t.test(`HTTP/${httpVersion}: an attempt that waited for the resolver says so, and no other`, async (t) => {
    const names = resolver(t, never)
    const attempt = (url: string, options: ConnectOptions = {}) => connect(url, { httpVersion, handshakeTimeout: 50, ...options })
    const lookup = (name: string) => `no answer within 50 ms: the name ${name} has not been looked up yet, does this machine reach its resolver?`
    await t.rejects(attempt(`http://slow${httpVersion}.example/`), { message: `Could not connect to the relay: ${lookup(`slow${httpVersion}.example`)}` })
    const proxy = `http://proxy${httpVersion}.example`
    await t.rejects(attempt('http://127.0.0.1/', { proxy }), { message: `Could not connect through the proxy ${proxy}: ${lookup(`proxy${httpVersion}.example`)}` })
    names.answer = at('127.0.0.1')
    const mute = createServer().listen(0, '127.0.0.1')
    t.teardown(() => mute.close())
    await once(mute, 'listening')
    mute.on('connection', (socket) => t.teardown(() => socket.destroy()))
    await t.rejects(attempt(`http://mute.example:${(mute.address() as AddressInfo).port}/`), { message: /no answer within 50 ms$/ })
  })

  t.test(`HTTP/${httpVersion}: a sidecar comes back without its resolver`, async (t) => {
    const names = resolver(t, at('127.0.0.1'))
    const relay = httpVersion === 1 ? await fakeRelay(t) : await fakeHttp2Relay(t)
    const sidecar = new UdpSidecar({ url: `http://relay${httpVersion}.example:${relay.port}/relay`, listen: '127.0.0.1:0', httpVersion })
    t.teardown(() => sidecar.close())
    await sidecar.start()
    await once(sidecar, 'connect')
    for (const answer of [gone, never, at('127.0.0.77')]) {
      names.answer = answer
      const tunnel = await relay.tunnels.next()
      if ('socket' in tunnel) tunnel.socket.destroy()
      else tunnel.stream.session!.destroy()
      await once(sidecar, 'connect')
    }
  })
}

t.test('a name in forward is looked up again when nothing comes back, at most every 10 s', async (t) => {
  const names = resolver(t, at('127.0.0.1'))
  const now = performance.now.bind(performance)
  let shift = 0
  t.intercept(performance, 'now', { value: () => now() + shift })
  const wireguard = await udpPeer(t)
  const { port } = wireguard.socket.address()
  const relay = await fakeRelay(t)
  const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', forward: `wireguard.example:${port}` })
  t.teardown(() => sidecar.close())
  wireguard.to(await sidecar.start())
  const tunnel = await relay.tunnels.next()
  const there = async (peer: typeof wireguard) => {
    tunnel.send(Buffer.from('hello'))
    await peer.received.next()
  }
  t.equal(names.asked, 1)
  await there(wireguard)
  shift += 9000
  await wireguard.send('alive')
  await tunnel.datagrams.next()
  shift += 9000
  await there(wireguard)
  t.equal(names.asked, 1, 'not while something comes from there')

  const moved = await udpPeer(t, '127.0.0.2', port)
  names.answer = gone
  shift += 10_000
  await there(wireguard)
  await there(wireguard)
  t.equal(names.asked, 2, 'a lookup that fails keeps the address')
  names.answer = at('127.0.0.2')
  shift += 10_000
  await there(wireguard)
  t.equal(names.asked, 3)
  await there(moved)
})
