import { blake2s } from '@noble/hashes/blake2.js'

/**
 * mac1 of a WireGuard handshake initiation identifies the responder: it is keyed with the responder's *public* key
 * (WireGuard protocol, section "DoS Mitigation"). The relay can check it without any secret.
 */

const LABEL = Buffer.from('mac1----')
const COVERED_BYTES = 116
const MAC_LENGTH = 16

/** The mac1 key for messages to the holder of `publicKey` (32 bytes): BLAKE2s-256(label ‖ public key). */
export function mac1Key (publicKey: Uint8Array): Uint8Array {
  return blake2s(Buffer.concat([LABEL, publicKey]))
}

/** True if the initiation at `start` is for the public key from which `key` was derived. */
export function isAddressedTo (key: Uint8Array, initiation: Buffer, start: number): boolean {
  const macAt = start + COVERED_BYTES
  const mac = blake2s(initiation.subarray(start, macAt), { key, dkLen: MAC_LENGTH })
  return initiation.compare(mac, 0, MAC_LENGTH, macAt, macAt + MAC_LENGTH) === 0
}
