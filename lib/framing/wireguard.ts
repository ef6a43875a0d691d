/**
 * Reads what a WireGuard message shows without any key: its type and its indices.
 * Source: the WireGuard protocol, section "Protocol & Cryptography", messages 1 to 4 (little-endian).
 */

/** The message types: the first byte of every WireGuard message. */
export const HANDSHAKE_INITIATION = 1
export const HANDSHAKE_RESPONSE = 2
export const COOKIE_REPLY = 3
export const TRANSPORT_DATA = 4
/** Not a WireGuard message, or one whose reserved bytes are not zero. */
export const OTHER = 0

/** One of the four message types, or `OTHER`. */
export type MessageType = 0 | 1 | 2 | 3 | 4

/** Size in bytes of each message type. For transport data this is the minimum. */
export const INITIATION_SIZE = 148
export const RESPONSE_SIZE = 92
export const COOKIE_REPLY_SIZE = 64
export const TRANSPORT_MIN_SIZE = 32

/** The largest datagram that any framing carries, in bytes. */
export const MAX_DATAGRAM_SIZE = 65535

/**
 * Returns the type of the datagram `buffer[start..end)`. A WireGuard message has the size of its type, and three
 * zero bytes after the type byte. Anything else is `OTHER`.
 */
export function classify (buffer: Buffer, start: number, end: number): MessageType {
  const size = end - start
  if (size < TRANSPORT_MIN_SIZE) return OTHER
  if ((buffer[start + 1]! | buffer[start + 2]! | buffer[start + 3]!) !== 0) return OTHER
  switch (buffer[start]) {
    case TRANSPORT_DATA: return TRANSPORT_DATA
    case HANDSHAKE_INITIATION: return size === INITIATION_SIZE ? HANDSHAKE_INITIATION : OTHER
    case HANDSHAKE_RESPONSE: return size === RESPONSE_SIZE ? HANDSHAKE_RESPONSE : OTHER
    case COOKIE_REPLY: return size === COOKIE_REPLY_SIZE ? COOKIE_REPLY : OTHER
    default: return OTHER
  }
}

/** True for the messages of a handshake. They are few, and must not wait behind data. */
export function isHandshake (type: MessageType): boolean {
  return type !== OTHER && type !== TRANSPORT_DATA
}

/** Returns the index that the sender of an initiation or response chose for itself. */
export function senderIndex (buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start + 4)
}

/** Returns the index that a response, a cookie reply or transport data is addressed to. */
export function receiverIndex (buffer: Buffer, start: number, type: MessageType): number {
  return buffer.readUInt32LE(start + (type === HANDSHAKE_RESPONSE ? 8 : 4))
}

/**
 * Zeroes the three reserved bytes of the message at `start`, which hold its length in the framing `wg`.
 * Call it only on memory that nothing else uses.
 */
export function clearReserved (buffer: Buffer, start: number): void {
  buffer[start + 1] = buffer[start + 2] = buffer[start + 3] = 0
}
