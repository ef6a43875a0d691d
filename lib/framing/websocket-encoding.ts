import { clearReserved } from './wireguard.ts'
import type { Encoding } from './framing.ts'
import { BINARY_FRAME, LENGTH_IN_16_BITS, PING_FRAME } from './websocket-frames.ts'

/**
 * WebSockets (RFC 6455) as a carrier of datagrams, one in each binary message. What comes in is read by ws; what goes out
 * is framed here, because the datagrams of one chunk are to leave in one write, and a server's frames need no mask.
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
