import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc, { type Arbitrary } from 'fast-check'
import { closeReasons } from '../../lib/tunnel/close-reasons.ts'
import type { Framing } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { pong, readClosing, wg } from '../../lib/framing/wg.ts'
import { clearReserved } from '../../lib/framing/wireguard.ts'
import { byteByByte, decode, Sink } from '../helpers/sink.ts'
import { anyBytes, chunking, cut, datagram, maxPacketSize, mutate, mutation, noiseOf } from './arbitraries.ts'
import type { Fuzz } from './fuzz.ts'

const framings = { wg, len16 }
/** By name, so that a counterexample can be read. */
const framing = fc.constantFrom('wg', 'len16')

/** A frame, and what a decoder finds in it. */
interface Frame {
  bytes: Buffer
  found: string
  datagram?: Buffer
}

/** Writes into the middle of larger memory, and sees to it that nothing around it is touched. */
function encode (framing: Framing, datagram: Buffer, stamped = false): Buffer {
  const GUARD = 8
  const source = Buffer.concat([Buffer.alloc(GUARD, 0xaa), datagram, Buffer.alloc(GUARD, 0xaa)])
  const target = Buffer.alloc(GUARD + datagram.length + framing.maxOverhead + GUARD, 0x55)
  const untouched = Buffer.from(source)
  const end = framing.encode(target, GUARD, source, GUARD, GUARD + datagram.length, stamped)
  assert.ok(source.equals(untouched), 'the source is not written to')
  assert.ok(end <= target.length - GUARD, 'no more than maxOverhead')
  assert.ok(target.subarray(0, GUARD).every((byte) => byte === 0x55) && target.subarray(end).every((byte) => byte === 0x55), 'nothing around it')
  return target.subarray(GUARD, end)
}

function datagramFrame (framing: Framing): Arbitrary<Frame> {
  return datagram.map((datagram) => ({ bytes: encode(framing, datagram), found: `datagram ${datagram.length}`, datagram }))
}

/** The frames that are no datagrams. */
function otherFrame (framing: Framing): Arbitrary<Frame> {
  if (framing === len16) return fc.constant({ bytes: len16.keepalive(), found: 'keepalive' })
  return fc.oneof(
    fc.constant('').map(() => ({ bytes: wg.keepalive(), found: 'control 80 8' })),
    anyBytes(8).map((bytes) => ({ bytes: pong(Buffer.concat([bytes, Buffer.alloc(8)]), 0, 8), found: 'control 81 8' })),
    fc.nat().map((afterMs) => ({ bytes: wg.drain(afterMs)!, found: 'control 82 4' })),
    fc.string({ maxLength: 300, size: 'max' }).map((text) => {
      const bytes = wg.closing(1, text)!
      return { bytes, found: `control 83 ${bytes.length - 4}` }
    }),
    fc.tuple(fc.integer({ min: 0x84, max: 0xff }), fc.constantFrom(0, 1, 1023, 1024)).map(([type, length]) => ({
      bytes: Buffer.concat([Buffer.from([type, 0, length >> 8, length & 255]), Buffer.alloc(length)]),
      found: `control ${type.toString(16)} ${length}`
    }))
  )
}

function frames (framing: Framing, maxLength: number): Arbitrary<Frame[]> {
  return fc.array(fc.oneof({ weight: 5, arbitrary: datagramFrame(framing) }, { weight: 1, arbitrary: otherFrame(framing) }), { maxLength })
}

const withFrames = framing.chain((name) => fc.record({ name: fc.constant(name), frames: frames(framings[name], 12) }))

const roundTrip: Fuzz = {
  name: 'framing-round-trip',
  title: 'any datagrams, cut in any way, come out as they went in and in order; those above the limit are passed over',
  runs: 250,
  prepare: () => fc.property(withFrames, maxPacketSize, chunking, ({ name, frames }, max, lengths) => {
    const { sink, fault } = decode(framings[name], cut(Buffer.concat(frames.map(({ bytes }) => bytes)), lengths), max)
    assert.equal(fault, undefined)
    const isTooLarge = ({ datagram }: Frame) => datagram !== undefined && datagram.length > max
    assert.deepEqual(sink.found, frames.map((frame) => isTooLarge(frame) ? 'too-large' : frame.found))
    testEqual(sink.datagrams, frames.flatMap((frame) => frame.datagram === undefined || isTooLarge(frame) ? [] : [frame.datagram]))
  })
}

/** Puts what `from` finds in `chunks` into `to`; also gives the frames as they were. */
function reframe (chunks: Buffer[], from: Framing, to: Framing): { reframed: Buffer, verbatim: Buffer } {
  const reframed: Buffer[] = []
  const verbatim: Buffer[] = []
  const decoder = from.createDecoder({
    datagram (chunk, frame, start, end, stamped) {
      const before = Buffer.from(chunk)
      reframed.push(encode(to, chunk.subarray(start, end), stamped))
      verbatim.push(Buffer.from(chunk.subarray(frame, end)))
      assert.ok(chunk.equals(before), 'the chunk is not written to')
    },
    tooLarge: () => assert.fail('too-large')
  }, { maxPacketSize: 65535 })
  for (const chunk of chunks) assert.equal(decoder.push(chunk), undefined)
  assert.equal(decoder.end(), undefined)
  return { reframed: Buffer.concat(reframed), verbatim: Buffer.concat(verbatim) }
}

const reframing: Fuzz = {
  name: 'framing-reframed',
  title: 'datagrams that go from one framing into the other and back are as they were, and so are frames passed on as they are',
  runs: 200,
  prepare: () => fc.property(framing, fc.array(datagram, { maxLength: 8 }), chunking, chunking, (name, datagrams, lengths, moreLengths) => {
    const [first, second] = name === 'wg' ? [wg, len16] : [len16, wg]
    const bytes = Buffer.concat(datagrams.map((datagram) => encode(first, datagram)))
    const there = reframe(cut(bytes, lengths), first, second)
    assert.ok(there.verbatim.equals(bytes), 'passed on as it is')
    testEqual(decode(second, [there.reframed]).sink.datagrams, datagrams)
    const back = reframe(cut(there.reframed, moreLengths), second, first)
    assert.ok(back.reframed.equals(bytes), 'and back')
  })
}

/** What is to be found in bytes: read from the framings' description, all at once, and without a thought to speed. */
function read (framing: Framing, bytes: Buffer, max: number): { found: string[], datagrams: Buffer[], fault: string | undefined } {
  const found: string[] = []
  const datagrams: Buffer[] = []
  const note = (payload: Buffer) => {
    found.push(payload.length > max ? 'too-large' : `datagram ${payload.length}`)
    if (payload.length <= max) datagrams.push(Buffer.from(payload))
  }
  const ended = (fault: string | undefined) => ({ found, datagrams, fault })
  while (bytes.length > 0) {
    if (framing === len16) {
      if (bytes.length < 2) return ended('protocol-error')
      const end = 2 + bytes.readUInt16BE(0)
      const isWhole = end <= bytes.length
      if (end === 2) found.push('keepalive')
      else if (isWhole) note(bytes.subarray(2, end))
      else if (end - 2 > max) found.push('too-large')
      if (!isWhole) return ended('protocol-error')
      bytes = bytes.subarray(end)
      continue
    }
    if (bytes.length < 4) return ended('protocol-error')
    const type = bytes[0]!
    const length = bytes.readUIntBE(1, 3)
    const fixed = length === 0 ? [undefined, 148, 92, 64][type] : undefined
    let size: number
    let headerSize = 0
    if (fixed !== undefined) {
      size = fixed
    } else if (type === 4 && length >= 32 && length <= 65535) {
      size = length
    } else if (type === 4) {
      return ended(length === 0 ? 'unstamped' : 'protocol-error')
    } else if (type === 0 && length >= 1 && length <= 65535) {
      size = length
      headerSize = 4
    } else if (type >= 0x80) {
      const [least, most] = ({ 0x80: [8, 8], 0x81: [8, 8], 0x82: [4, 4], 0x83: [2, 258] } as Record<number, number[]>)[type] ?? [0, 1024]
      if (length < least! || length > most! || bytes.length < 4 + length) return ended('protocol-error')
      found.push(`control ${type.toString(16)} ${length}`)
      bytes = bytes.subarray(4 + length)
      continue
    } else {
      return ended('protocol-error')
    }
    const end = headerSize + size
    if (end > bytes.length) {
      if (size > max) found.push('too-large')
      return ended('protocol-error')
    }
    const payload = Buffer.from(bytes.subarray(headerSize, end))
    if (type === 4) clearReserved(payload, 0)
    note(payload)
    bytes = bytes.subarray(end)
  }
  return ended(undefined)
}

/** Lengths on both sides of what is allowed, by type. */
const ODD_LENGTHS: Array<[types: number[], lengths: number[]]> = [
  [[0], [0, 1, 2, 2048, 2049, 65534, 65535, 65536, 0xffffff]],
  [[1, 2, 3], [0, 1, 64, 92, 148, 0xffffff]],
  [[4], [0, 1, 31, 32, 33, 2048, 2049, 65534, 65535, 65536, 0xffffff]],
  [[5, 0x7f], [0, 1, 32]],
  [[0x80, 0x81], [0, 7, 8, 9]],
  [[0x82], [3, 4, 5]],
  [[0x83], [1, 2, 3, 257, 258, 259]],
  [[0x84, 0xff], [0, 1023, 1024, 1025, 0xffffff]]
]

/** Headers that are just right, or not quite. */
const oddHeader = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constantFrom(...ODD_LENGTHS).chain(([types, lengths]) => fc.tuple(fc.constantFrom(...types), fc.constantFrom(...lengths)))
      .map(([type, length]) => Buffer.from([type, length >> 16, (length >> 8) & 255, length & 255]))
  },
  { weight: 1, arbitrary: anyBytes(4) }
)

const hostileStream = framing.chain((name) => fc.record({
  name: fc.constant(name),
  bytes: fc.oneof(
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 300, size: 'max' }).map((bytes) => Buffer.from(bytes)) },
    {
      weight: 5,
      arbitrary: fc.tuple(frames(framings[name], 8), fc.array(mutation(oddHeader), { maxLength: 3 }), fc.boolean()).map(([frames, mutations, anywhere]) => {
        let length = 0
        const places = frames.map(({ bytes }) => (length += bytes.length) - bytes.length)
        return mutate(Buffer.concat(frames.map(({ bytes }) => bytes)), mutations, anywhere ? undefined : places)
      })
    },
    {
      weight: 2,
      arbitrary: fc.array(fc.tuple(oddHeader, noiseOf(fc.nat(300))).map(([header, rest]) => Buffer.concat([header, rest])), { maxLength: 6 })
        .map((parts) => Buffer.concat(parts))
    }
  )
}))

const hostileBytes: Fuzz = {
  name: 'framing-hostile-bytes',
  title: 'any bytes, cut in any way, give what the framing says they hold, with the right fault and nothing behind it',
  runs: 400,
  prepare: () => fc.property(hostileStream, maxPacketSize, chunking, ({ name, bytes }, max, lengths) => {
    const framing = framings[name]
    const untouched = Buffer.from(bytes)
    const expected = read(framing, bytes, max)
    for (const chunks of [[bytes], cut(bytes, lengths), byteByByte(bytes)]) {
      const { sink, fault } = decode(framing, chunks, max)
      assert.deepEqual(sink.found, expected.found)
      testEqual(sink.datagrams, expected.datagrams)
      assert.equal(fault?.reason, expected.fault)
      if (fault !== undefined) assert.match(fault.text, /^[ -~]{1,80}$/)
    }
    assert.ok(bytes.equals(untouched), 'the bytes are not written to')
  })
}

const DECODERS = 30
const STREAM_LENGTH = 300_000
/** What a decoder may take for itself beside the frame that it is putting together. */
const SLACK = 1024
const MAX_CONTROL_FRAME = 4 + 1024

const memory: Fuzz = {
  name: 'framing-memory',
  title: 'between two chunks a decoder keeps no more than one frame of the allowed size, however much has come',
  runs: 6,
  prepare: () => {
    const collectGarbage = garbageCollector()
    return fc.asyncProperty(withFrames, fc.constantFrom(1, 148, 2048, 65535), fc.integer({ min: 1, max: STREAM_LENGTH }), fc.integer({ min: 100, max: 70_000 }), async ({ name, frames }, max, length, chunkLength) => {
      fc.pre(frames.length > 0)
      const framing = framings[name]
      // Over and over the same, cut off anywhere.
      const stream = Buffer.alloc(length, Buffer.concat(frames.map(({ bytes }) => bytes)))
      const allowed = Math.max(max + framing.maxOverhead, MAX_CONTROL_FRAME) + SLACK
      const held = (): number => {
        collectGarbage()
        return process.memoryUsage().arrayBuffers
      }
      const before = held()
      const decoders = Array.from({ length: DECODERS }, () => {
        const decoder = framing.createDecoder({ datagram: () => {}, tooLarge: () => {} }, { maxPacketSize: max })
        // Copies, as a socket's chunks are: whatever is kept of one keeps all of it.
        for (const chunk of cut(stream, [chunkLength])) {
          const copy = Buffer.allocUnsafeSlow(chunk.length)
          chunk.copy(copy)
          if (decoder.push(copy) !== undefined) break
        }
        return decoder
      })
      let perDecoder: number
      let attempts = 0
      do {
        perDecoder = (held() - before) / DECODERS
        // What has been collected is given back by another thread, in its own time.
        if (perDecoder > allowed) await setTimeout(20)
      } while (perDecoder > allowed && ++attempts < 50)
      assert.ok(perDecoder <= allowed, `${perDecoder} bytes, ${allowed} are allowed`)
      assert.equal(decoders.length, DECODERS)
    })
  }
}

/** A full collection on demand, without a flag on the command line. */
function garbageCollector (): () => void {
  setFlagsFromString('--expose-gc')
  return runInNewContext('gc') as () => void
}

const closingText: Fuzz = {
  name: 'framing-closing',
  title: 'a closing frame carries any text as far as it fits, without what a terminal obeys and never cut inside a character',
  runs: 200,
  prepare: () => fc.property(
    fc.constantFrom(...Object.values(closeReasons).map(({ code }) => code), 0, 65535),
    fc.oneof(fc.string({ unit: 'binary', maxLength: 300, size: 'max' }), fc.string({ unit: 'grapheme', maxLength: 300, size: 'max' }), fc.string({ unit: fc.nat(0xffff).map((unit) => String.fromCharCode(unit)), maxLength: 300, size: 'max' })),
    (code, text) => {
      const sink = new Sink()
      const decoder = wg.createDecoder(sink, { maxPacketSize: 1 })
      assert.equal(decoder.push(wg.closing(code, text)!), undefined)
      assert.equal(decoder.end(), undefined)
      const { payload } = sink.controls[0]!
      assert.ok(payload.length <= 258)
      const read = readClosing(payload, 0, payload.length)
      assert.equal(read.code, code)
      // eslint-disable-next-line no-control-regex
      const clean = Buffer.from(text).toString().replace(/[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g, '')
      assert.ok(clean.startsWith(read.text))
      if (Buffer.byteLength(text) <= 256) assert.equal(read.text, clean)
      else assert.ok(payload.length > 258 - 4, 'as far as it fits')
    })
}

/** Each datagram the same as that of its place. */
function testEqual (actual: Buffer[], expected: Buffer[]): void {
  assert.equal(actual.length, expected.length)
  actual.forEach((datagram, index) => assert.ok(datagram.equals(expected[index]!), `datagram ${index}`))
}

export const framingFuzzes: Fuzz[] = [roundTrip, reframing, hostileBytes, memory, closingText]
