import fc, { type Arbitrary } from 'fast-check'
import { SeededRandom } from '../helpers/random.ts'

/** Sizes at which something changes: of the messages, of the headers, of the limits. */
const BOUNDARIES = [1, 2, 3, 4, 5, 16, 31, 32, 33, 63, 64, 65, 91, 92, 93, 147, 148, 149, 255, 256, 1452, 2047, 2048, 2049, 65534, 65535]
const WIREGUARD_SIZES = [148, 92, 64]

/** Content is cut out of this: to make each byte of a large datagram on its own would take longer than the test. */
const noise = new SeededRandom(1).bytes(2 ** 17)

/** Bytes that look random; shrinks to fewer. */
export function noiseOf (size: Arbitrary<number>): Arbitrary<Buffer> {
  return fc.tuple(size, fc.nat(2 ** 16)).map(([size, at]) => Buffer.from(noise.subarray(at, at + size)))
}

const datagramSize = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...BOUNDARIES) },
  { weight: 5, arbitrary: fc.integer({ min: 1, max: 200 }) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 65535 }) }
)

function startingWith (head: number[], size: Arbitrary<number>): Arbitrary<Buffer> {
  return noiseOf(size).map((bytes) => {
    bytes.set(head.slice(0, bytes.length))
    return bytes
  })
}

/** Datagrams of 1 to 65535 bytes: WireGuard's messages, others that begin like them, and anything else. */
export const datagram: Arbitrary<Buffer> = fc.oneof(
  { weight: 4, arbitrary: startingWith([4, 0, 0, 0], datagramSize) },
  { weight: 3, arbitrary: fc.constantFrom(1, 2, 3).chain((type) => startingWith([type, 0, 0, 0], fc.constant(WIREGUARD_SIZES[type - 1]!))) },
  { weight: 1, arbitrary: fc.nat(4).chain((type) => startingWith([type, 0, 0, 0], datagramSize)) },
  { weight: 1, arbitrary: fc.tuple(fc.nat(4), fc.nat(255), fc.nat(255), fc.nat(255)).chain((head) => startingWith(head, datagramSize)) },
  { weight: 2, arbitrary: noiseOf(datagramSize) }
)

export const maxPacketSize: Arbitrary<number> = fc.oneof(
  { weight: 3, arbitrary: fc.constant(65535) },
  { weight: 2, arbitrary: fc.constant(2048) },
  { weight: 2, arbitrary: fc.constantFrom(...BOUNDARIES) },
  { weight: 1, arbitrary: fc.integer({ min: 1, max: 65535 }) }
)

/** How a stream is cut: the lengths of its chunks, over and over. Some chunks are empty. */
export type Chunking = readonly number[]

export const chunking: Arbitrary<Chunking> = fc.oneof(
  fc.constant([1]),
  fc.constant([2 ** 24]),
  fc.array(fc.oneof(fc.integer({ min: 0, max: 5 }), fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 70_000 })), { minLength: 1, maxLength: 8 })
    // One that ends nowhere would be no chunking.
    .map((lengths) => [...lengths, 7])
)

export function cut (bytes: Buffer, lengths: Chunking): Buffer[] {
  const chunks: Buffer[] = []
  for (let position = 0, i = 0; position < bytes.length; i++) {
    const end = position + lengths[i % lengths.length]!
    chunks.push(bytes.subarray(position, end))
    position = end
  }
  return chunks
}

/** A change to a string of bytes; `at` and `length` are parts of the whole, so that they fit any. */
export interface Mutation {
  kind: 'flip' | 'set' | 'remove' | 'insert' | 'repeat' | 'truncate'
  at: number
  length: number
  bytes: Buffer
}

/** @param inserted what is put in between; else a few bytes of any value */
export function mutation (inserted: Arbitrary<Buffer> = anyBytes(8)): Arbitrary<Mutation> {
  return fc.record({
    kind: fc.constantFrom('flip', 'set', 'remove', 'insert', 'repeat', 'truncate'),
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    length: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 300 })),
    bytes: inserted
  })
}

/** A few bytes of any value. */
export function anyBytes (maxLength: number): Arbitrary<Buffer> {
  return fc.uint8Array({ minLength: 1, maxLength }).map((bytes) => Buffer.from(bytes))
}

/** @param places where something begins; a mutation at one of these goes deeper than one anywhere */
export function mutate (bytes: Buffer, mutations: readonly Mutation[], places?: readonly number[]): Buffer {
  for (const { kind, at, length, bytes: inserted } of mutations) {
    const place = Math.floor(at * bytes.length)
    const position = places === undefined || places.length === 0
      ? place
      : Math.min(bytes.length, places[Math.min(places.length - 1, Math.floor(at * places.length))]! + (inserted[0]! & 3))
    const [before, after] = [bytes.subarray(0, position), bytes.subarray(position)]
    switch (kind) {
      case 'flip':
        bytes = Buffer.from(bytes)
        if (position < bytes.length) bytes[position]! ^= 1 << (inserted[0]! & 7)
        break
      case 'set':
        bytes = Buffer.from(bytes)
        bytes.set(inserted.subarray(0, after.length), position)
        break
      case 'remove':
        bytes = Buffer.concat([before, after.subarray(length)])
        break
      case 'insert':
        bytes = Buffer.concat([before, inserted, after])
        break
      case 'repeat':
        bytes = Buffer.concat([before, after.subarray(0, length), after])
        break
      case 'truncate':
        bytes = before
        break
    }
  }
  return bytes
}
