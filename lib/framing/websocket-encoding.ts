import { clearReserved } from './wireguard.ts'
import type { Encoding } from './framing.ts'

/**
 * WebSockets (RFC 6455) as a carrier of datagrams, one in each binary message. What comes in is read by ws; what goes out
 * is framed here, because the datagrams of one chunk are to leave in one write, and a server's frames need no mask.
 */

/** A final frame of binary data, and a ping (section 5.2). */
const BINARY = 0x82
const PING = 0x89
/** A length in the frame's second byte is below this; here follow two bytes with the length. */
const LENGTH_16 = 126
const MAX_HEADER_LENGTH = 4

export const webSocketEncoding: Encoding = {
  maxOverhead: MAX_HEADER_LENGTH,

  encode (target, offset, source, start, end, stamped) {
    const length = end - start
    target[offset] = BINARY
    let payload = offset + 2
    if (length < LENGTH_16) {
      target[offset + 1] = length
    } else {
      target[offset + 1] = LENGTH_16
      payload = target.writeUInt16BE(length, offset + 2)
    }
    source.copy(target, payload, start, end)
    if (stamped) clearReserved(target, payload)
    return payload + length
  },

  keepalive () {
    return Buffer.from([PING, 0])
  }
}
