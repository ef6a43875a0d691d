/**
 * What can be told of a WireGuard message without any key: its type, and where its indices stand.
 * Source: the WireGuard protocol, section "Protocol & Cryptography", messages 1 to 4 (little-endian).
 */

/** The message types, the first byte of every WireGuard message. */
export const HANDSHAKE_INITIATION = 1
export const HANDSHAKE_RESPONSE = 2
export const COOKIE_REPLY = 3
export const TRANSPORT_DATA = 4
/** A datagram that is no WireGuard message, or one whose reserved bytes are in use. */
export const OTHER = 0

/** One of the four message types, or `OTHER`. */
export type MessageType = 0 | 1 | 2 | 3 | 4

/** Size in bytes of each message type; transport data has this size at least. */
export const INITIATION_SIZE = 148
export const RESPONSE_SIZE = 92
export const COOKIE_REPLY_SIZE = 64
export const TRANSPORT_MIN_SIZE = 32

/** The largest payload of one datagram that any framing carries, in bytes. */
export const MAX_DATAGRAM_SIZE = 65535

/**
 * Tells the type of the datagram `buffer[start..end)`. A message has the size that its type demands and
 * three zero bytes behind the type; whatever has not is `OTHER`.
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

/** Whether a message of this type belongs to a handshake: such messages are few, and must not wait behind data. */
export function isHandshake (type: MessageType): boolean {
  return type !== OTHER && type !== TRANSPORT_DATA
}

/** The index that the sender of an initiation or response picked for itself. */
export function senderIndex (buffer: Buffer, start: number): number {
  return buffer.readUInt32LE(start + 4)
}

/** The index that a response, a cookie reply or transport data is addressed to. */
export function receiverIndex (buffer: Buffer, start: number, type: MessageType): number {
  return buffer.readUInt32LE(start + (type === HANDSHAKE_RESPONSE ? 8 : 4))
}

/**
 * Zeroes the three reserved bytes of the message at `start`, where the framing `wg` keeps a length while the
 * message travels. Only for memory that nothing else holds.
 */
export function clearReserved (buffer: Buffer, start: number): void {
  buffer[start + 1] = buffer[start + 2] = buffer[start + 3] = 0
}
