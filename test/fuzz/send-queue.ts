import assert from 'node:assert/strict'
import fc, { type Arbitrary } from 'fast-check'
import { len16 } from '../../lib/framing/len16.ts'
import { wg } from '../../lib/framing/wg.ts'
import { SendQueue } from '../../lib/hub/packet/send-queue.ts'
import { frames } from '../helpers/fake-relay.ts'
import { FakeTunnel } from '../helpers/fake-tunnel.ts'
import { decode } from '../helpers/sink.ts'
import { classify, isHandshake } from '../../lib/framing/wireguard.ts'
import { datagram } from './arbitraries.ts'
import type { Fuzz } from './fuzz.ts'

const framings = { wg, len16 }

type Step =
  /** A chunk of so many datagrams, of which those not `kept` go to somebody else. */
  { do: 'chunk', from: 'wg' | 'len16', datagrams: Buffer[], kept: boolean[] } |
  { do: 'flood', from: 'wg' | 'len16', datagram: Buffer, count: number } |
  { do: 'control' } |
  { do: 'take' }

const from = fc.constantFrom('wg', 'len16')

const step: Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('chunk'), from, datagrams: fc.array(datagram, { minLength: 1, maxLength: 6 }), kept: fc.array(fc.boolean(), { minLength: 6, maxLength: 6 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('flood'), from, datagram, count: fc.integer({ min: 1, max: 600 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('control') }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('take') }) }
)

const sendQueue: Fuzz = {
  name: 'send-queue',
  title: 'what goes out to a peer whose socket blocks at any time is whole, in order and in its framing, or counted as dropped',
  runs: 60,
  prepare: () => fc.asyncProperty(from, fc.boolean(), fc.array(step, { maxLength: 25, size: 'max' }), async (to, isOpen, steps) => {
    const tunnel = new FakeTunnel({ isOpen, highWaterMark: 20_000 })
    let dropped = 0
    let waiting = 0
    const counters = {
      datagramsOut: 0,
      bytesOut: 0,
      waits: (behind: number) => { assert.equal(behind, waiting++) },
      waited: (_milliseconds: number, count: number) => { waiting -= count },
      overflowed: (count: number) => {
        dropped += count
        waiting -= count
      }
    }
    const queue = new SendQueue(tunnel.tunnel, framings[to], counters)
    const sent: Buffer[] = []

    const chunk = (from: 'wg' | 'len16', datagrams: Buffer[], isKept: (at: number) => boolean) => {
      const bytes = frames(framings[from], datagrams)
      const untouched = Buffer.from(bytes)
      let at = 0
      const decoder = framings[from].createDecoder({
        datagram (source, frame, start, end, stamped) {
          if (!isKept(at++)) return
          const original = datagrams[at - 1]!
          queue.add(source, frame, start, end, stamped, framings[from], isHandshake(classify(original, 0, original.length)))
          sent.push(original)
        },
        tooLarge: () => assert.fail('too-large')
      }, { maxPacketSize: 65535 })
      assert.equal(decoder.push(bytes), undefined)
      queue.flush()
      assert.ok(bytes.equals(untouched), 'the chunk is not written to')
    }

    for (const step of steps) {
      if (step.do === 'chunk') chunk(step.from, step.datagrams, (at) => step.kept[at]!)
      else if (step.do === 'flood') for (let i = 0; i < step.count; i++) chunk(step.from, [step.datagram], () => true)
      else if (step.do === 'control') queue.control(framings[to].keepalive())
      else await tunnel.takeOne()
      assert.ok(queue.length <= 512)
    }
    await tunnel.open()
    while (queue.length > 0 || tunnel.writableLength > 0) await tunnel.takeOne()

    const bytes = Buffer.concat(tunnel.writes)
    const { sink, fault } = decode(framings[to], [bytes])
    assert.equal(fault, undefined)
    assert.equal(counters.bytesOut, bytes.length)
    assert.equal(counters.datagramsOut, sink.datagrams.length)
    assert.equal(sink.datagrams.length + dropped, sent.length, 'delivered or dropped')
    // Handshake messages overtake data, but neither one of its own kind.
    for (const kind of [true, false]) {
      const isOfKind = (datagram: Buffer) => isHandshake(classify(datagram, 0, datagram.length)) === kind
      let at = 0
      const all = sent.filter(isOfKind)
      for (const datagram of sink.datagrams.filter(isOfKind)) {
        while (at < all.length && !all[at]!.equals(datagram)) at++
        assert.ok(at++ < all.length, 'out of order, or not what was sent')
      }
    }
    tunnel.destroy()
  })
}

export const sendQueueFuzzes: Fuzz[] = [sendQueue]
