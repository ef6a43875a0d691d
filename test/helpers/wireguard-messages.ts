import { randomBytes } from 'node:crypto'
import { blake2s } from '@noble/hashes/blake2.js'
import { wireguardMessage } from './datagrams.ts'

// WireGuard messages with the indices that a test wants. Whatever is encrypted in them is random.

/** A public key, as good as any for those who only compare it. */
export function publicKey (): Buffer {
  return randomBytes(32)
}

/** A handshake initiation; with `to`, its mac1 names the holder of that public key. */
export function initiation (senderIndex: number, to?: Uint8Array): Buffer {
  const message = wireguardMessage(1)
  message.writeUInt32LE(senderIndex, 4)
  if (to === undefined) return message
  const key = blake2s(Buffer.concat([Buffer.from('mac1----'), to]))
  message.set(blake2s(message.subarray(0, 116), { key, dkLen: 16 }), 116)
  return message
}

export function response (senderIndex: number, receiverIndex: number): Buffer {
  const message = wireguardMessage(2)
  message.writeUInt32LE(senderIndex, 4)
  message.writeUInt32LE(receiverIndex, 8)
  return message
}

export function cookieReply (receiverIndex: number): Buffer {
  const message = wireguardMessage(3)
  message.writeUInt32LE(receiverIndex, 4)
  return message
}

export function transportData (receiverIndex: number, size = 128): Buffer {
  const message = wireguardMessage(4, size)
  message.writeUInt32LE(receiverIndex, 4)
  return message
}
