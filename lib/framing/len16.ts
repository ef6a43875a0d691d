import { clearReserved } from './wireguard.ts'
import type { DatagramSink, DecoderOptions, Framing } from './framing.ts'
import { StreamDecoder } from './stream-decoder.ts'

/**
 * The framing `len16` puts a 16-bit length before each datagram, like `UoTLV/1` (eduVPN's ProxyGuard) and
 * Mullvad's udp-over-tcp. A length of 0 is a keepalive.
 */

const HEADER_LENGTH = 2

class Len16Decoder extends StreamDecoder {
  readonly #sink: DatagramSink
  readonly #maxPacketSize: number

  constructor (sink: DatagramSink, { maxPacketSize }: DecoderOptions) {
    super(HEADER_LENGTH)
    this.#sink = sink
    this.#maxPacketSize = maxPacketSize
  }

  protected override measure (buffer: Buffer, position: number): number {
    const length = (buffer[position]! << 8) | buffer[position + 1]!
    if (length <= this.#maxPacketSize) return HEADER_LENGTH + length
    this.#sink.tooLarge()
    return -(HEADER_LENGTH + length)
  }

  protected override take (buffer: Buffer, position: number, end: number): void {
    const start = position + HEADER_LENGTH
    if (start === end) this.#sink.keepalive?.()
    else this.#sink.datagram(buffer, position, start, end, false)
  }
}

export const len16: Framing = {
  name: 'len16',
  isKeepaliveAnswered: false,
  maxOverhead: HEADER_LENGTH,

  createDecoder (sink, options) {
    return new Len16Decoder(sink, options)
  },

  encode (target, offset, source, start, end, stamped) {
    target.writeUInt16BE(end - start, offset)
    const payload = offset + HEADER_LENGTH
    source.copy(target, payload, start, end)
    if (stamped) clearReserved(target, payload)
    return payload + end - start
  },

  keepalive () {
    return Buffer.alloc(HEADER_LENGTH)
  },

  closing () {
    return undefined
  },

  drain () {
    return undefined
  },

  notice () {
    return undefined
  }
}
