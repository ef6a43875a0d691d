import { clearReserved } from './wireguard.ts'
import type { Encoding } from './framing.ts'
import { BINARY_FRAME, LENGTH_IN_16_BITS, PING_FRAME } from './websocket-frames.ts'

/**
 * Carries each datagram in one binary message of a WebSocket (RFC 6455). ws reads incoming messages. Outgoing ones are
 * framed here, so that all datagrams of a chunk leave in one write. A server's frames need no mask.
 */

const MAX_HEADER_LENGTH = 4

export const webSocketEncoding: Encoding = {
  maxOverhead: MAX_HEADER_LENGTH,

  encode (target, offset, source, start, end, stamped) {
    const length = end - start
    target[offset] = BINARY_FRAME
    let payload = offset + 2
    if (length < LENGTH_IN_16_BITS) {
      target[offset + 1] = length
    } else {
      target[offset + 1] = LENGTH_IN_16_BITS
      payload = target.writeUInt16BE(length, offset + 2)
    }
    source.copy(target, payload, start, end)
    if (stamped) clearReserved(target, payload)
    return payload + length
  },

  keepalive () {
    return Buffer.from([PING_FRAME, 0])
  }
}
