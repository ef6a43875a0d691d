import { randomBytes } from 'node:crypto'
import t, { type Test } from 'tap'
import type { FramingName } from '../../lib/index.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import type { DatagramSink } from '../../lib/framing/framing.ts'
import { frames } from '../helpers/fake-relay.ts'
import { openSession, openTunnelOn, type Http2Client } from '../helpers/http2-client.ts'
import { Mailbox } from '../helpers/mailbox.ts'
import { SeededRandom } from '../helpers/random.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { serverCertificate } from '../helpers/relay-app.ts'
import { sinkOf, type ControlFrame } from '../helpers/sink.ts'
import { initiation, response, transportData } from '../helpers/wireguard-messages.ts'
import { newChannel, startServer } from './server.ts'
import { fragments, message, readMessage } from './websocket-frames.ts'

// Datagrams between peers that came by either version of HTTP, as WebSockets or in a framing of the relay's own, in one channel.

const app = await startServer(t, { server: { http2: true, https: { ...serverCertificate(), allowHTTP1: true } } })
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='

/** A peer's client, whatever it speaks. */
interface Peer {
  /** Sends datagrams in one write. */
  send: (...datagrams: Buffer[]) => void
  /** Writes bytes as they are. */
  write: (bytes: Buffer) => unknown
  /** One datagram as bytes of its protocol. */
  encode: (datagram: Buffer) => Buffer
  next: () => Promise<Buffer>
}

type Source = Pick<RawClient | Http2Client, 'send' | 'read'>

function webSocketPeer (source: Source): Peer {
  const write = (bytes: Buffer): unknown => source.send(bytes)
  return {
    write,
    encode: (datagram) => message(datagram),
    send: (...datagrams) => write(Buffer.concat(datagrams.map((datagram) => message(datagram)))),
    next: async () => await readMessage(source)
  }
}

function framedPeer (source: Source, name: 'wg' | 'len16', stream: NodeJS.ReadableStream): Peer {
  const framing = { wg, len16 }[name]
  const datagrams = new Mailbox<Buffer>()
  const sink: DatagramSink = sinkOf({ datagrams, controls: new Mailbox<ControlFrame>(), keepalives: new Mailbox<true>() })
  const decoder = framing.createDecoder(sink, { maxPacketSize: 65535 })
  stream.on('data', (chunk: Buffer) => {
    const fault = decoder.push(chunk)
    if (fault !== undefined) throw new Error(fault.text)
  })
  const write = (bytes: Buffer): unknown => source.send(bytes)
  return {
    write,
    encode: (datagram) => frames(framing, [datagram]),
    send: (...each) => write(frames(framing, each)),
    next: async () => await datagrams.next()
  }
}

const peerKinds: Record<string, (t: Test, path: string) => Promise<Peer>> = {
  'a WebSocket over HTTP/2': async (t, path) => webSocketPeer(await openTunnelOn(await openSession(t, app, { tls: true }), path)),
  'a WebSocket over HTTP/1.1': async (t, path) => webSocketPeer(await openHttp1(t, path, { Upgrade: 'websocket', 'Sec-WebSocket-Key': KEY, 'Sec-WebSocket-Version': '13' })),
  'wg over HTTP/2': async (t, path) => await openFramed2(t, path, 'wg'),
  'len16 over HTTP/2': async (t, path) => await openFramed2(t, path, 'len16'),
  'wg over HTTP/1.1': async (t, path) => await openFramed1(t, path, 'wg'),
  'len16 over HTTP/1.1': async (t, path) => await openFramed1(t, path, 'len16')
}

async function openHttp1 (t: Test, path: string, headers: Record<string, string>): Promise<RawClient> {
  const client = await RawClient.dial(t, app, { tls: true })
  await client.send(upgradeText(path, { headers }))
  const { statusCode } = await client.head()
  if (statusCode !== 101) throw new Error(`refused: ${statusCode}`)
  return client
}

async function openFramed1 (t: Test, path: string, framing: FramingName & ('wg' | 'len16')): Promise<Peer> {
  const client = await openHttp1(t, path, { 'Spanza-Framing': framing })
  return framedPeer(client, framing, client.socket)
}

async function openFramed2 (t: Test, path: string, framing: 'wg' | 'len16'): Promise<Peer> {
  const client = await openTunnelOn(await openSession(t, app, { tls: true }), path, { protocol: 'spanza', headers: { 'spanza-framing': framing } })
  return framedPeer(client, framing, client.stream)
}

t.test('peers of every kind in one channel make WireGuard sessions, each with each, and exchange datagrams', async (t) => {
  const path = `/relay/${newChannel()}`
  const names = Object.keys(peerKinds)
  const peers: Peer[] = []
  for (const connect of Object.values(peerKinds)) peers.push(await connect(t, path))
  for (const [a, from] of peers.entries()) {
    for (const [b, to] of peers.entries()) {
      if (a >= b) continue
      const [initiator, responder] = [1000 + a * 100 + b, 5000 + a * 100 + b]
      from.send(initiation(initiator))
      // Nobody has told a public key: it goes to all others, and one of them responds.
      for (const other of peers) if (other !== from) await other.next()
      to.send(response(responder, initiator))
      await from.next()
      const [there, back] = [transportData(responder, 1420), transportData(initiator, 32)]
      from.send(there)
      to.send(back)
      t.ok((await to.next()).equals(there) && (await from.next()).equals(back), `${names[a]} and ${names[b]}`)
    }
  }
  const { drops } = app.relayHub.stats()
  t.ok(Object.values(drops).every((count) => count === 0), 'nothing was dropped')
})

const pairs: Array<[from: string, to: string]> = [
  ['a WebSocket over HTTP/2', 'a WebSocket over HTTP/1.1'],
  ['a WebSocket over HTTP/1.1', 'a WebSocket over HTTP/2'],
  ['wg over HTTP/2', 'a WebSocket over HTTP/2'],
  ['a WebSocket over HTTP/2', 'len16 over HTTP/1.1']
]

for (const [fromName, toName] of pairs) {
  t.test(`10,000 datagrams of random sizes in random chunks from ${fromName} to ${toName}`, async (t) => {
    const random = new SeededRandom()
    t.comment(`seed ${random.seed}`)
    const path = `/relay/${newChannel()}`
    const from = await peerKinds[fromName]!(t, path)
    const to = await peerKinds[toName]!(t, path)
    const content = randomBytes(10_000)
    let wrong = 0
    // A part at a time, so that no queue is ever full.
    for (let sent = 0; sent < 10_000; sent += 100) {
      const datagrams = Array.from({ length: 100 }, (_, index) => {
        const size = random.pick([1, 2, 20, 125, 126, 127, 500, 1420, 1500]) + random.below(3)
        const start = random.below(content.length - size)
        const datagram = Buffer.from(content.subarray(start, start + size))
        datagram[0] = 255
        if (size > 5) datagram.writeUInt32BE(sent + index, 1)
        return datagram
      })
      const isFragmented = fromName.includes('WebSocket') && random.below(3) === 0
      const bytes = Buffer.concat(datagrams.flatMap((datagram) => isFragmented ? fragments(random.chunks(datagram, 700)) : [from.encode(datagram)]))
      for (const chunk of random.chunks(bytes, random.pick([300, 3000, 30_000]))) from.write(chunk)
      for (const datagram of datagrams) if (!(await to.next()).equals(datagram)) wrong++
    }
    t.equal(wrong, 0)
  })
}
