import { crc32 } from 'node:zlib'
import { blake2s } from '@noble/hashes/blake2.js'
import { Random } from './random.js'

/**
 * Datagrams that tell who has sent them. The last 12 bytes are the number of the sender's tunnel, the datagram's
 * sequence number there, and a CRC over all that goes before. In WireGuard's handshake messages this lies within mac2,
 * which mac1 does not cover and the relay does not read.
 */

const MARK_LENGTH = 12
const MAC1_AT = 116
const LABEL = Buffer.from('mac1----')

/** What payloads are cut from. */
const noise = new Random(1).bytes(128 * 1024)

/** The mac1 key of a public key, computed once for each device. */
export function mac1Key (publicKey) {
  return blake2s(Buffer.concat([LABEL, publicKey]))
}

function message (random, type, size) {
  const datagram = Buffer.allocUnsafe(size)
  const offset = random.between(0, noise.length - size)
  noise.copy(datagram, 0, offset, offset + size)
  datagram.writeUInt32LE(type, 0)
  return datagram
}

/** @param key the `mac1Key` of whom it is for; undefined for somebody whose key nobody knows */
export function initiation (random, senderIndex, key) {
  const datagram = message(random, 1, 148)
  datagram.writeUInt32LE(senderIndex, 4)
  if (key !== undefined) datagram.set(blake2s(datagram.subarray(0, MAC1_AT), { key, dkLen: 16 }), MAC1_AT)
  return datagram
}

export function response (random, senderIndex, receiverIndex) {
  const datagram = message(random, 2, 92)
  datagram.writeUInt32LE(senderIndex, 4)
  datagram.writeUInt32LE(receiverIndex, 8)
  return datagram
}

export function cookieReply (random, receiverIndex) {
  const datagram = message(random, 3, 64)
  datagram.writeUInt32LE(receiverIndex, 4)
  return datagram
}

export function transportData (random, receiverIndex, size) {
  const datagram = message(random, 4, size)
  datagram.writeUInt32LE(receiverIndex, 4)
  return datagram
}

/** A datagram that is no WireGuard message. */
export function otherDatagram (random, size) {
  const datagram = message(random, 0, size)
  datagram[0] = random.pick([0, 5, 0x45, 0x80, 0xff])
  if (random.chance(0.3)) datagram.set([4, 1, 2, 3]) // as Cloudflare WARP has it
  return datagram
}

/** Writes the mark; @returns the CRC */
export function seal (datagram, tunnel, sequence) {
  const markAt = datagram.length - MARK_LENGTH
  datagram.writeUInt32LE(tunnel, markAt)
  datagram.writeUInt32LE(sequence, markAt + 4)
  const crc = crc32(datagram.subarray(0, markAt + 8))
  datagram.writeUInt32LE(crc, markAt + 8)
  return crc
}

/** @returns undefined when the datagram is not as it was sealed */
export function readMark (datagram) {
  const markAt = datagram.length - MARK_LENGTH
  if (markAt < 0) return undefined
  const crc = datagram.readUInt32LE(markAt + 8)
  if (crc !== crc32(datagram.subarray(0, markAt + 8))) return undefined
  return { tunnel: datagram.readUInt32LE(markAt), sequence: datagram.readUInt32LE(markAt + 4), crc }
}

export const SMALLEST_OTHER = MARK_LENGTH + 4
