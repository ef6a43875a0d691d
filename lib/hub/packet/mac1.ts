import { blake2s } from '@noble/hashes/blake2.js'

/**
 * mac1 of a WireGuard handshake initiation tells for whom it is: it is keyed with the responder's *public* key
 * (WireGuard protocol, section "DoS Mitigation"), so that the relay can test it without any secret.
 */

const LABEL = Buffer.from('mac1----')
const COVERED_BYTES = 116
const MAC_LENGTH = 16

/** The key that mac1 of every message to the holder of `publicKey` (32 bytes) is made with: BLAKE2s-256(label ‖ public key). */
export function mac1Key (publicKey: Uint8Array): Uint8Array {
  return blake2s(Buffer.concat([LABEL, publicKey]))
}

/** Whether the initiation at `start` is for the holder of the public key that `key` was made of. */
export function isAddressedTo (key: Uint8Array, initiation: Buffer, start: number): boolean {
  const macAt = start + COVERED_BYTES
  const mac = blake2s(initiation.subarray(start, macAt), { key, dkLen: MAC_LENGTH })
  return initiation.compare(mac, 0, MAC_LENGTH, macAt, macAt + MAC_LENGTH) === 0
}
