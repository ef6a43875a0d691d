import { EventEmitter } from 'node:events'
import t, { type Test } from 'tap'
import { wg } from '../../lib/framing/wg.ts'
import { Hub } from '../../lib/hub/hub.ts'
import type { DetachInfo, PeerInfo } from '../../lib/hub/hub-info.ts'
import type { DetachReason } from '../../lib/tunnel/close-reasons.ts'
import type { Farewell, Tunnel } from '../../lib/tunnel/tunnel.ts'
import { admitted } from '../helpers/admitted.ts'
import { Sink } from '../helpers/sink.ts'
import { initiation, publicKey, response, transportData } from '../helpers/wireguard-messages.ts'

// A kind of tunnel that the hub has never seen, and that is no stream of Node's: whatever the hub needs of one is in the interface.

class InMemoryTunnel extends EventEmitter<{ data: [Buffer], end: [], drain: [], error: [Error], close: [] }> implements Tunnel {
  /** What was written and taken. */
  readonly taken: Buffer[] = []
  /** What was written while nothing was taken. */
  readonly #waiting: Array<{ bytes: Buffer, onTaken: (() => void) | undefined }> = []
  readonly #held: Buffer[] = []
  #takes = true
  told: { reason: DetachReason, text: string, how: 'left' | 'aborted' } | undefined
  saidFarewell: Farewell | undefined | 'nothing' = 'nothing'
  isPaused = true
  hasEnded = false
  isFinished = false
  isDestroyed = false
  isClosed = false
  farewell: Farewell | undefined
  readonly maxWrite = 1000
  readonly systemQueueSize = 0

  get writableLength (): number {
    return this.#waiting.reduce((sum, { bytes }) => sum + bytes.length, 0)
  }

  get waiting (): number {
    return this.writableLength
  }

  get writableNeedDrain (): boolean {
    return this.#waiting.length > 0
  }

  onData (listener: (chunk: Buffer) => void): void {
    this.on('data', listener)
    if (this.listenerCount('data') === 1) this.resume()
  }

  offData (listener: (chunk: Buffer) => void): void { this.off('data', listener) }
  onEnd (listener: () => void): void { this.on('end', listener) }
  onDrain (listener: () => void): void { this.on('drain', listener) }
  onError (listener: (error: Error) => void): void { this.on('error', listener) }
  onClose (listener: () => void): void { this.once('close', listener) }
  onSign (): void {}
  hold (): void { this.isPaused = true }

  resume (): void {
    this.isPaused = false
    while (!this.isPaused && this.#held.length > 0) this.emit('data', this.#held.shift()!)
  }

  shareReads (): void {}

  write (bytes: Buffer, onTaken?: () => void): boolean {
    this.#waiting.push({ bytes, onTaken })
    if (this.#takes) this.take()
    return this.#waiting.length === 0
  }

  pass (chunk: Buffer, onTaken?: () => void): boolean {
    return this.write(Buffer.from(chunk), onTaken)
  }

  stage (): undefined {}

  writeStaged (staging: Buffer, length: number): boolean {
    return this.write(Buffer.from(staging.subarray(0, length)))
  }

  cork (): void {}
  uncork (): void {}

  end (farewell?: Farewell): void {
    this.saidFarewell = farewell
    this.isFinished = true
    if (this.hasEnded) this.destroy()
  }

  leave (reason: DetachReason, text: string, lastBytes?: Buffer): void {
    if (lastBytes !== undefined) this.write(lastBytes)
    this.told = { reason, text, how: 'left' }
    this.isFinished = true
    this.destroy()
  }

  abort (reason: DetachReason, text: string): void {
    this.told = { reason, text, how: 'aborted' }
    this.destroy()
  }

  destroy (): void {
    if (this.isDestroyed) return
    this.isDestroyed = this.isClosed = true
    this.emit('close')
  }

  ping (): void {}

  // What the test does as the other side.

  send (bytes: Buffer): void {
    if (this.isPaused) this.#held.push(bytes)
    else this.emit('data', bytes)
  }

  sendEnd (farewell?: Farewell): void {
    this.farewell = farewell
    this.hasEnded = true
    this.emit('end')
    if (this.isFinished) this.destroy()
  }

  stopTaking (): void {
    this.#takes = false
  }

  take (): void {
    this.#takes = true
    const waiting = this.#waiting.splice(0)
    for (const { bytes } of waiting) this.taken.push(bytes)
    for (const { onTaken } of waiting) onTaken?.()
    if (waiting.length > 0) this.emit('drain')
  }
}

function setUp (t: Test) {
  const left: Array<[string, DetachInfo]> = []
  const log = { info () {}, warn () {}, error () {} }
  const hub = new Hub({ closeGrace: 10 }, log, { attached () {}, detached: ({ id }: PeerInfo, info) => { left.push([id, info]) } })
  t.teardown(async () => await hub.close())
  const join = (id: string, kind: 'packet' | 'stream', key?: Buffer): InMemoryTunnel => {
    const peer = admitted({
      channel: { scope: '/relay', name: 'home', kind },
      id,
      publicKey: key,
      framing: kind === 'packet' ? wg : undefined,
      hasKeepalive: kind === 'packet'
    })
    const tunnel = new InMemoryTunnel()
    hub.checkRoom(peer)
    hub.attach(peer, tunnel)
    return tunnel
  }
  return { hub, left, join }
}

function framed (datagram: Buffer): Buffer {
  const bytes = Buffer.alloc(datagram.length + wg.maxOverhead)
  return bytes.subarray(0, wg.encode(bytes, 0, datagram, 0, datagram.length, false))
}

function datagramsIn (tunnel: InMemoryTunnel): Buffer[] {
  const sink = new Sink()
  wg.createDecoder(sink, { maxPacketSize: 65535 }).push(Buffer.concat(tunnel.taken))
  return sink.datagrams
}

t.test('a packet channel routes between tunnels of a kind of their own, and waits for one that takes nothing', async (t) => {
  const { hub, left, join } = setUp(t)
  const key = publicKey()
  const [a, b, c] = [join('a', 'packet'), join('b', 'packet', key), join('c', 'packet')]
  const sent = { initiation: initiation(1, key), response: response(2, 1), data: transportData(2) }
  a.send(framed(sent.initiation))
  b.send(framed(sent.response))
  b.stopTaking()
  for (let i = 0; i < 600; i++) a.send(framed(sent.data))
  t.ok(hub.stats().waiting > 0)
  t.equal(hub.stats().drops['queue-full'] > 0, true)
  const waiting = hub.stats().waiting
  const [written] = [b.writableLength]
  t.ok(written > 0)
  b.take()
  t.equal(hub.stats().waiting, 0, 'all that waited has left')
  const got = datagramsIn(b)
  t.ok(got[0]!.equals(sent.initiation))
  t.ok(got.length > waiting)
  t.ok(got.slice(1).every((datagram) => datagram.equals(sent.data)), 'whole, and nothing else')
  t.ok(datagramsIn(a)[0]!.equals(sent.response))
  t.same(datagramsIn(c), [], 'nothing for anybody else')
  hub.disconnect({ channel: 'home', id: 'a' }, 'a test')
  t.match(a.told, { reason: 'disconnected', text: 'a test', how: 'left' })
  b.emit('error', new Error('it broke'))
  t.match(left, [['a', { reason: 'disconnected' }], ['b', { reason: 'lost', text: 'it broke' }]])
})

t.test('a stream channel splices them: no faster than the other takes, in pieces, with what was said at the end', async (t) => {
  const { left, join } = setUp(t)
  const a = join('a', 'stream')
  a.send(Buffer.from('early '))
  const b = join('b', 'stream')
  b.stopTaking()
  a.send(Buffer.alloc(2500, 'x'))
  t.ok(a.isPaused, 'the sender is held back')
  a.send(Buffer.from(' late'))
  b.take()
  t.equal(Buffer.concat(b.taken).toString(), 'early ' + 'x'.repeat(2500) + ' late')
  t.ok(b.taken.every(({ length }) => length <= 1000))
  a.sendEnd({ code: 4321, reason: 'done' })
  t.same(b.saidFarewell, { code: 4321, reason: 'done' })
  b.send(Buffer.from('answer'))
  t.equal(Buffer.concat(a.taken).toString(), 'answer', 'the other direction goes on')
  b.sendEnd()
  t.match(left, [['a', { reason: 'ended' }], ['b', { reason: 'ended' }]])
})

t.test('one of a pair that breaks takes the other with it, and its end does not look like one', async (t) => {
  const { left, join } = setUp(t)
  const [a, b] = [join('a', 'stream'), join('b', 'stream')]
  a.emit('error', new Error('it broke'))
  t.match(b.told, { reason: 'partner-lost', how: 'aborted' })
  t.match(left, [['a', { reason: 'lost' }], ['b', { reason: 'partner-lost' }]])
})
