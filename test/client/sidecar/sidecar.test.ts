import { once } from 'node:events'
import { createSocket } from 'node:dgram'
import type { AddressInfo, Socket } from 'node:net'
import { networkInterfaces } from 'node:os'
import t, { type Test } from 'tap'
import { isFree } from '../../helpers/ports.ts'
import { errors, UdpSidecar, type CloseReason, type SidecarEvents, type SidecarOptions } from '../../../lib/client/index.ts'
import { closeReasons } from '../../../lib/tunnel/close-reasons.ts'
import { wg } from '../../../lib/framing/wg.ts'
import { wireguardMessage } from '../../helpers/datagrams.ts'
import { fakeRelay, refuse, say, SWITCHING, type Answer, type FakeRelay, type FakeRelayOptions } from '../../helpers/fake-relay.ts'
import { Mailbox } from '../../helpers/mailbox.ts'
import { udpPeer, type UdpPeer } from '../../helpers/udp-peer.ts'

type Events = { [Name in keyof SidecarEvents]: Mailbox<SidecarEvents[Name][0]> }

interface Setup {
  relay: FakeRelay
  sidecar: UdpSidecar
  events: Events
  /** The sidecar's UDP address. */
  address: AddressInfo
  /** Sends to the sidecar. */
  peer: UdpPeer
}

function record (sidecar: UdpSidecar): Events {
  const events: Events = {
    listening: new Mailbox(),
    connect: new Mailbox(),
    lost: new Mailbox(),
    retry: new Mailbox(),
    loop: new Mailbox(),
    drain: new Mailbox(),
    notice: new Mailbox(),
    fallback: new Mailbox(),
    oversized: new Mailbox(),
    stop: new Mailbox()
  }
  for (const [name, mailbox] of Object.entries(events)) {
    sidecar.on(name as keyof SidecarEvents, (info: unknown) => (mailbox as Mailbox<unknown>).push(info))
  }
  return events
}

/** A sidecar on a free port, started, with a relay and a local peer. */
async function setup (t: Test, options: Partial<SidecarOptions> = {}, relayOptions: FakeRelayOptions = {}): Promise<Setup> {
  const relay = await fakeRelay(t, relayOptions)
  const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', ...options })
  t.teardown(() => sidecar.close())
  const events = record(sidecar)
  const address = await sidecar.start()
  return { relay, sidecar, events, address, peer: (await udpPeer(t)).to(address) }
}

/** Waits until something is so that no event tells. */
async function until (condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}

/** An answer that is not given before `go()`. */
function held (): { answer: Answer, asked: Promise<unknown>, go: () => void } {
  const gate = new Mailbox<Socket>()
  return {
    answer: (_request, socket) => gate.push(socket),
    asked: gate.next(),
    go: () => gate.all[0]!.write(`${SWITCHING}Spanza-Framing: wg\r\n\r\n`)
  }
}

const interfaces = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
/** An address of this machine that other machines see. */
const outward = interfaces.find(({ family, internal }) => family === 'IPv4' && !internal)?.address
const hasIPv6 = interfaces.some(({ address }) => address === '::1')

t.test('joins a UDP port to a relay, both ways', async (t) => {
  const { relay, sidecar, events, peer, address } = await setup(t)
  const tunnel = await relay.tunnels.next()
  t.same(await events.connect.next(), { framing: 'wg', url: relay.url })
  t.same(await events.listening.next(), address)
  t.match(address, { address: '127.0.0.1', family: 'IPv4' })
  const [out, back] = [wireguardMessage(1), wireguardMessage(4)]
  await peer.send(out)
  t.same(await tunnel.datagrams.next(), out)
  tunnel.send(back)
  t.same(await peer.received.next(), back)
  await until(() => sidecar.stats.udpDatagramsOut === 1)
  t.match(sidecar.stats, {
    connected: true, connections: 1, datagramsIn: 1, datagramsOut: 1, bytesIn: back.length, bytesOut: out.length, udpDatagramsIn: 1
  })
})

t.test('over IPv6', { skip: !hasIPv6 }, async (t) => {
  const { relay, address } = await setup(t, { listen: '[::1]:0' })
  const peer = (await udpPeer(t, '::1')).to(address)
  await peer.send('hello')
  const tunnel = await relay.tunnels.next()
  t.equal(String(await tunnel.datagrams.next()), 'hello')
  tunnel.send(Buffer.from('back'))
  t.equal(String(await peer.received.next()), 'back')
})

t.test('without forward, datagrams go to the last sender, and before there is one they are counted', async (t) => {
  const { relay, sidecar, peer, address } = await setup(t)
  const tunnel = await relay.tunnels.next()
  tunnel.send(Buffer.from('to nobody'))
  await until(() => sidecar.stats.drops['no-return-address'] === 1)
  for (const sender of [peer, (await udpPeer(t)).to(address)]) {
    await sender.send('hello')
    await tunnel.datagrams.next()
    tunnel.send(Buffer.from('back'))
    t.equal(String(await sender.received.next()), 'back')
  }
})

t.test('with forward, datagrams go there, whoever sends', async (t) => {
  const wireguard = await udpPeer(t)
  const { relay, peer } = await setup(t, { forward: wireguard.address.replace('127.0.0.1', 'localhost') })
  const tunnel = await relay.tunnels.next()
  tunnel.send(Buffer.from('first'))
  t.equal(String(await wireguard.received.next()), 'first')
  await peer.send('hello')
  t.equal(String(await tunnel.datagrams.next()), 'hello')
  tunnel.send(Buffer.from('second'))
  t.equal(String(await wireguard.received.next()), 'second')
})

t.test('a sender that is neither on this machine nor the forward address is dropped and counted', { skip: outward === undefined }, async (t) => {
  const wireguard = await udpPeer(t)
  const { relay, sidecar, peer, address } = await setup(t, { listen: '0.0.0.0:0', forward: wireguard.address })
  const tunnel = await relay.tunnels.next()
  const stranger = await udpPeer(t, outward)
  await stranger.to({ ...address, address: outward! }).send('strange')
  await peer.to({ ...address, address: '127.0.0.1' }).send('known')
  t.equal(String(await tunnel.datagrams.next()), 'known')
  t.equal(sidecar.stats.drops['not-loopback'], 1)
})

t.test('the forward address may send, also when it is not on this machine', { skip: outward === undefined }, async (t) => {
  const wireguard = await udpPeer(t, outward)
  const { relay, address } = await setup(t, { listen: '0.0.0.0:0', forward: wireguard.address })
  const tunnel = await relay.tunnels.next()
  await wireguard.to({ ...address, address: outward! }).send('hello')
  t.equal(String(await tunnel.datagrams.next()), 'hello')
})

t.test('a datagram too large for UDP is counted, and the next one passes', async (t) => {
  const wireguard = await udpPeer(t)
  const { relay, sidecar } = await setup(t, { forward: wireguard.address })
  const tunnel = await relay.tunnels.next()
  tunnel.send(Buffer.alloc(65535), Buffer.from('small'))
  t.equal(String(await wireguard.received.next()), 'small')
  await until(() => sidecar.stats.drops['udp-too-large'] === 1)
})

t.test('a forward address where nobody listens harms nobody', async (t) => {
  const wireguard = await udpPeer(t)
  const gone = createSocket('udp4').bind(0, '127.0.0.1')
  await once(gone, 'listening')
  const { port } = gone.address()
  gone.close()
  const { relay, sidecar, peer } = await setup(t, { forward: `127.0.0.1:${port}` })
  const tunnel = await relay.tunnels.next()
  for (let i = 0; i < 10; i++) {
    tunnel.send(Buffer.from('hello'))
    await until(() => sidecar.stats.datagramsIn === i + 1)
  }
  await peer.send('still here')
  t.equal(String(await tunnel.datagrams.next()), 'still here')
  t.ok(wireguard)
})

t.test('connects again when the connection is lost, and counts on', async (t) => {
  const { relay, sidecar, events, peer } = await setup(t)
  for (const text of ['one', 'two']) {
    const tunnel = await relay.tunnels.next()
    await events.connect.next()
    await peer.send(text)
    t.equal(String(await tunnel.datagrams.next()), text)
    tunnel.socket.destroy()
    const { reason, retryIn } = await events.lost.next()
    t.equal(reason, 'lost')
    t.ok(retryIn >= 250 && retryIn <= 1000, `${retryIn} ms`)
  }
  t.equal(sidecar.stats.datagramsOut, 2)
})

t.test('tries again when nobody listens there yet', async (t) => {
  const free = await fakeRelay(t)
  const { url } = free
  await new Promise((resolve) => free.server.close(resolve))
  const sidecar = new UdpSidecar({ url, listen: '127.0.0.1:0' })
  t.teardown(() => sidecar.close())
  const events = record(sidecar)
  await sidecar.start()
  const [first, second] = [await events.retry.next(), await events.retry.next()]
  t.match(first, { error: { code: 'FST_RELAY_CONNECT' }, text: /ECONNREFUSED/ })
  t.ok(first.retryIn >= 250 && first.retryIn <= 500, `${first.retryIn} ms`)
  t.ok(second.retryIn >= 250 && second.retryIn <= 800, `${second.retryIn} ms: hardly longer, as the attempt costs little`)
})

t.test('bridges a moment without connection', async (t) => {
  const { answer, asked, go } = held()
  const { relay, sidecar, peer } = await setup(t, {}, { answers: [answer] })
  await asked
  const [old, response, initiation, data] = [wireguardMessage(1), wireguardMessage(2), wireguardMessage(1), wireguardMessage(4)]
  for (const datagram of [old, response, initiation, data]) await peer.send(datagram)
  for (let i = 0; i < 62; i++) await peer.send(Buffer.from([i]))
  // The older initiation, and the oldest of 65.
  await until(() => sidecar.stats.drops.outage === 2)
  const socket = (await relay.requests.next()).socket
  const received: Buffer[] = []
  const decoder = wg.createDecoder({
    datagram: (chunk, _frame, start, end) => { received.push(Buffer.from(chunk.subarray(start, end))) },
    tooLarge: () => {}
  }, { maxPacketSize: 65535 })
  socket.on('data', (chunk) => decoder.push(chunk))
  go()
  await until(() => received.length === 64)
  t.same(received[0], initiation)
  t.equal(received[1]!.length, data.length)
  t.same(received.slice(2).map((datagram) => datagram[0]), Array.from({ length: 62 }, (_, i) => i))
})

t.test('what is too old after an outage is counted and not sent', async (t) => {
  const time = { shift: 0 }
  const now = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => now() + time.shift })
  const { answer, asked, go } = held()
  const { relay, sidecar, peer, events } = await setup(t, {}, { answers: [answer, held().answer] })
  await asked
  await peer.send(wireguardMessage(1))
  await peer.send(wireguardMessage(1))
  await until(() => sidecar.stats.drops.outage === 1)
  time.shift = 2000
  go()
  await events.connect.next()
  t.match(sidecar.stats, { datagramsOut: 0, drops: { outage: 2 } })
  t.ok(relay)
})

t.test('answers after which it tries again', async (t) => {
  for (const status of ['408 A', '425 B', '429 C', '500 D', '502 E', '503 F', '504 G']) {
    t.test(status, async (t) => {
      const { relay, events } = await setup(t, {}, { answers: [refuse(status)] })
      t.match(await events.retry.next(), { error: { code: 'FST_RELAY_REFUSED', statusCode: parseInt(status) } })
      await relay.tunnels.next()
      await events.connect.next()
    })
  }
})

t.test('waits as long as Retry-After says, at most 5 min', async (t) => {
  const { relay, events } = await setup(t, {}, { answers: [refuse('503 Full', {}, 'Retry-After: 1\r\n'), refuse('503 Full', {}, 'Retry-After: 86400\r\n')] })
  await relay.requests.next()
  const begin = performance.now()
  t.ok((await events.retry.next()).retryIn >= 1250)
  await relay.requests.next()
  t.ok(performance.now() - begin >= 1000)
  const { retryIn } = await events.retry.next()
  t.ok(retryIn >= 300_000 && retryIn <= 316_000, `${retryIn} ms`)
})

t.test('answers after which it gives up', async (t) => {
  const answers: Array<[string, Answer, object]> = [
    ['401', refuse('401 Unauthorized', { code: 'NO', message: 'who?' }), { code: 'FST_RELAY_REFUSED', statusCode: 401, relayCode: 'NO' }],
    ['404', refuse('404 Not Found', { message: 'Route GET:/relay not found' }), { code: 'FST_RELAY_REFUSED', statusCode: 404 }],
    ['a code of ours alone', say('HTTP/1.1 421 No\r\nContent-Length: 37\r\n\r\n{"code":"FST_RELAY_HOST_NOT_ALLOWED"}'), { relayCode: 'FST_RELAY_HOST_NOT_ALLOWED' }]
  ]
  for (const [name, answer, error] of answers) {
    t.test(name, async (t) => {
      const { events, address } = await setup(t, {}, { answers: [answer] })
      const stop = await events.stop.next()
      t.match(stop, { error, text: stop.error!.message })
      t.equal(events.retry.all.length, 0)
      t.equal(await isFree(address), true)
    })
  }
})

t.test('what something in between answers is never final, and tried again slowly', async (t) => {
  const html = (status: string, headers = '') => say(`HTTP/1.1 ${status}\r\n${headers}Content-Length: 6\r\n\r\n<html>`)
  const answers: Array<[string, Answer, object]> = [
    ['a login page', html('200 OK', 'Server: portal\r\n'), { text: 'Something between you and the relay answered 200: OK, Server: portal (a login page?)' }],
    ['a redirection to one', html('302 Found', 'Location: http://portal.example/\r\n'), { text: /302: Found, to http:\/\/portal\.example\/ \(a login page\?\)/ }],
    ['a block page', html('403 Forbidden'), { text: /403: Forbidden \(a filter that blocks this\?\)/ }],
    ['an ingress during a deployment', html('404 Not Found'), { text: /404: Not Found \(a server that does not know the relay, or not yet/ }],
    ['a proxy that wants a password', html('407 Proxy Authentication Required'), { text: /407: .* \(a proxy that wants a user name and a password\)/ }],
    ['JSON of another kind', refuse('401 No', { error: 7, message: 'Access denied' }), { text: /^Something between .* 401: Access denied/ }],
    ['a proxy without Upgrade', refuse('426 Upgrade Required', { code: 'FST_RELAY_UPGRADE_REQUIRED', message: 'This is a relay' }, 'Server: nginx\r\n'),
      { text: /^A proxy before the relay took the Upgrade header away, and the relay answered 426: .*, Server: nginx; mend the proxy with its recipe in docs\/behind-proxies\.md/ }],
    ['a 101 without Spanza-Framing', say(`${SWITCHING}\r\n`), { error: { code: 'FST_RELAY_ANSWER' } }]
  ]
  for (const [name, answer, info] of answers) {
    t.test(name, async (t) => {
      const { relay, events } = await setup(t, {}, { answers: [answer] })
      const retry = await events.retry.next()
      t.match(retry, info)
      t.ok(retry.retryIn >= 2000, `${retry.retryIn} ms`)
      await relay.tunnels.next()
      await events.connect.next()
      t.equal(events.stop.all.length, 0)
    })
  }
})

t.test('reasons after which it connects again, and such after which it gives up', async (t) => {
  for (const reason of Object.keys(closeReasons) as CloseReason[]) {
    t.test(reason, async (t) => {
      const { relay, events, address } = await setup(t)
      const { code, retry } = closeReasons[reason]
      const tunnel = await relay.tunnels.next()
      tunnel.socket.end(wg.closing(code, 'words')!)
      if (retry) {
        const { retryIn, ...info } = await events.lost.next()
        t.same(info, { reason, text: 'words' })
        t.ok(reason === 'limit' ? retryIn >= 16_000 : retryIn <= 500, `${retryIn} ms`)
      } else {
        t.same(await events.stop.next(), { reason, text: 'words' })
        t.equal(await isFree(address), true)
      }
    })
  }
})

t.test('replaced: connects again if asked to', async (t) => {
  const { relay, events } = await setup(t, { retryReplaced: true })
  const tunnel = await relay.tunnels.next()
  tunnel.socket.end(wg.closing(closeReasons.replaced.code, '')!)
  t.match(await events.lost.next(), { reason: 'replaced' })
  await relay.tunnels.next()
})

t.test('drain: ends the old connection, then connects anew, and bridges between', async (t) => {
  const { relay, events, peer } = await setup(t)
  const first = await relay.tunnels.next()
  await peer.send('before')
  t.equal(String(await first.datagrams.next()), 'before')
  const begin = performance.now()
  first.socket.write(wg.drain(300)!)
  t.same(await events.drain.next(), { afterMs: 300 })
  const { reason, retryIn } = await events.lost.next()
  const waited = performance.now() - begin
  t.ok(waited >= 230, `${waited} ms`)
  t.equal(reason, 'drained')
  t.ok(retryIn >= 250, 'one that did not last waits as others do, or a relay that asks always would be asked always')
  await first.ended
  t.equal(relay.requests.all.length, 1, 'not both at a time')
  await peer.send('between')
  const second = await relay.tunnels.next()
  t.equal(String(await second.datagrams.next()), 'between')
})

t.test('drain: of many requests of one connection the first counts', async (t) => {
  const { relay, events } = await setup(t)
  const first = await relay.tunnels.next()
  await events.connect.next()
  first.socket.write(Buffer.concat(Array.from({ length: 1000 }, (_, index) => wg.drain(index)!)))
  t.match(await events.lost.next(), { reason: 'drained' })
  t.same(events.drain.all, [{ afterMs: 0 }])
})

t.test('drain: after a connection that lasted, connects at once', async (t) => {
  const time = { shift: 0 }
  const now = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => now() + time.shift })
  const { relay, events } = await setup(t)
  const first = await relay.tunnels.next()
  await events.connect.next()
  time.shift = 10_000
  first.socket.write(wg.drain(0)!)
  t.match(await events.lost.next(), { reason: 'drained', retryIn: 0 })
  await relay.tunnels.next()
})

t.test('the wait is short again after a connection that lasted', async (t) => {
  const time = { shift: 0 }
  const now = performance.now.bind(performance)
  t.intercept(performance, 'now', { value: () => now() + time.shift })
  const refusals = Array.from({ length: 2 }, () => refuse('503 A'))
  const { relay, events } = await setup(t, {}, { answers: refusals })
  const tunnel = await relay.tunnels.next()
  await events.connect.next()
  time.shift += 10_000
  tunnel.socket.destroy()
  const { retryIn } = await events.lost.next()
  t.ok(retryIn >= 250 && retryIn <= 500, `${retryIn} ms`)
})

t.test('the token', async (t) => {
  t.test('of a function is asked for anew at each attempt', async (t) => {
    let count = 0
    const token = async () => `token${++count}`
    const { relay } = await setup(t, { token }, { answers: [refuse('503 A')] })
    t.equal((await relay.requests.next()).headers.authorization, 'Bearer token1')
    t.equal((await relay.requests.next()).headers.authorization, 'Bearer token2')
  })

  t.test('that cannot be had, or not be sent, is a failed attempt', async (t) => {
    const tokens = [() => { throw new Error('no file') }, async () => { throw new Error('no network') }, () => 'bad\n', () => 'good']
    const { relay, events } = await setup(t, { token: () => tokens.shift()!() })
    t.match(await events.retry.next(), { text: 'no file' })
    t.match(await events.retry.next(), { text: 'no network' })
    t.match(await events.retry.next(), { error: { code: 'FST_RELAY_CLIENT_OPTION' } })
    t.equal((await relay.requests.next()).headers.authorization, 'Bearer good')
  })

  t.test('may be none', async (t) => {
    const { relay } = await setup(t, { token: () => undefined })
    t.equal((await relay.requests.next()).headers.authorization, undefined)
  })
})

t.test('close', async (t) => {
  t.test('while connected ends the connection and frees the port', async (t) => {
    const { relay, sidecar, address, events } = await setup(t)
    const tunnel = await relay.tunnels.next()
    await events.connect.next()
    await Promise.all([sidecar.close(), sidecar.close()])
    await tunnel.ended
    t.equal(await isFree(address), true)
    t.same([events.lost.all, events.stop.all], [[], []])
  })

  t.test('while connecting', async (t) => {
    const { answer, asked } = held()
    const { sidecar, address, events } = await setup(t, {}, { answers: [answer] })
    await asked
    await sidecar.close()
    t.equal(await isFree(address), true)
    t.same([events.retry.all, events.stop.all], [[], []])
  })

  t.test('while the token is being fetched', async (t) => {
    const { sidecar, address } = await setup(t, { token: () => new Promise(() => {}) })
    await sidecar.close()
    t.equal(await isFree(address), true)
  })

  t.test('while waiting counts what is bridged', async (t) => {
    const { sidecar, address, events, peer } = await setup(t, {}, { answers: [refuse('503 A', {}, 'Retry-After: 60\r\n')] })
    await events.retry.next()
    await peer.send(wireguardMessage(1))
    await peer.send(wireguardMessage(1))
    await until(() => sidecar.stats.drops.outage === 1)
    await sidecar.close()
    t.equal(sidecar.stats.drops.outage, 2)
    t.equal(await isFree(address), true)
  })

  t.test('while starting, before it, and after it gave up', async (t) => {
    const starting = new UdpSidecar({ url: 'http://127.0.0.1:1/', listen: '127.0.0.1:0' })
    const started = starting.start()
    started.catch(() => {})
    await starting.close()
    await t.rejects(started, { name: 'AbortError' })

    const unused = new UdpSidecar({ url: 'http://127.0.0.1:1/' })
    await unused.close()
    await t.rejects(unused.start(), { name: 'AbortError' })

    const { sidecar, events } = await setup(t, {}, { answers: [refuse('404 A', { message: 'no' })] })
    await events.stop.next()
    await sidecar.close()
  })
})

t.test('a port that is taken fails the start', async (t) => {
  const other = await udpPeer(t)
  const sidecar = new UdpSidecar({ url: 'http://127.0.0.1:1/', listen: other.address })
  await t.rejects(sidecar.start(), { code: 'EADDRINUSE' })
  await sidecar.close()
})

t.test('a forward name that does not exist fails the start', async (t) => {
  const sidecar = new UdpSidecar({ url: 'http://127.0.0.1:1/', listen: '127.0.0.1:0', forward: 'nowhere.invalid:1' })
  await t.rejects(sidecar.start(), { message: /getaddrinfo/ })
})

t.test('starts only once', async (t) => {
  const { sidecar } = await setup(t)
  await t.rejects(sidecar.start(), /only once/)
})

t.test('an option that cannot be used is named with its value', async (t) => {
  const url = 'http://127.0.0.1:1/'
  const cases: Array<[object, RegExp]> = [
    [{ url: 'wss://a' }, /option url/],
    [{ url, framings: 'raw' }, /option framings must be a list .* not 'raw'/],
    [{ url, token: 5 }, /option token/],
    [{ url, listen: 'localhost:1' }, /option listen .* not 'localhost:1'/],
    [{ url, listen: '127.0.0.1' }, /option listen/],
    [{ url, listen: '0.0.0.0:51821' }, /option forward must be given when listen \(0\.0\.0\.0:51821\) is not a loopback address/],
    [{ url, listen: '[::]:51821' }, /option forward/],
    [{ url, forward: '127.0.0.1' }, /option forward .* not '127\.0\.0\.1'/],
    [{ url, forward: '127.0.0.1:0' }, /option forward/],
    [{ url, forward: '[::1]:51820' }, /option forward must be an IPv4 address like listen, not '\[::1\]:51820'/],
    [{ url, retryReplaced: 'yes' }, /option retryReplaced/]
  ]
  for (const [options, message] of cases) {
    t.throws(() => new UdpSidecar(options as SidecarOptions), { code: 'FST_RELAY_CLIENT_OPTION', message }, JSON.stringify(options))
  }
  t.throws(() => new UdpSidecar({ url: '' }), errors.FST_RELAY_CLIENT_OPTION)
})
