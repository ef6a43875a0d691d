import type { DatagramFraming } from './framings.ts'

/**
 * What every framing offers: a decoder that finds datagrams in a tunnel's bytes, and an encoder that writes
 * them. A framing knows no peers; what it finds goes to a `DatagramSink`.
 */

/** Why a tunnel's bytes could not be read any further. */
export interface FramingFault {
  /** The close reason, a name of the table in `tunnel/close-reasons.ts`. */
  reason: 'protocol-error' | 'unstamped'
  /** What was found, for the log and the closing frame. */
  text: string
}

/** Takes what a decoder finds. The buffers belong to the decoder's caller and are not written to. */
export interface DatagramSink {
  /**
   * One datagram. `chunk[frame..end)` is all it took on the tunnel, `chunk[start..end)` the datagram itself.
   * `stamped`: it is WireGuard transport data whose three reserved bytes hold a length on the tunnel; they
   * are zero in the datagram.
   */
  datagram: (chunk: Buffer, frame: number, start: number, end: number, stamped: boolean) => void
  /** A datagram that was passed over: it is larger than the limit. */
  tooLarge: () => void
  /** A keepalive (`len16`), which needs no answer. */
  keepalive?: () => void
  /** A control frame (`wg`): its type (0x80 to 0xff) and `chunk[start..end)`, its payload. */
  control?: (type: number, chunk: Buffer, start: number, end: number) => void
}

/** Finds datagrams in a byte stream, however it was cut. Holds at most one frame of the allowed size. */
export interface Decoder {
  /** Takes the next bytes; returns what is wrong with them, after which nothing more may be pushed. */
  push: (chunk: Buffer) => FramingFault | undefined
  /** The stream has ended; returns a fault when that was inside a frame. */
  end: () => FramingFault | undefined
}

export interface DecoderOptions {
  /** Datagrams above this many bytes are skipped and reported as `too-large`; 1 to 65535. */
  maxPacketSize: number
}

/** How datagrams are put on a tunnel. */
export interface Encoding {
  /** What a frame takes at most beyond its datagram, in bytes. */
  readonly maxOverhead: number
  /**
   * Writes the datagram `source[start..end)`, 1 to 65535 bytes, into `target` from `offset` on and returns
   * the offset behind it. `target` must have room for the datagram and `maxOverhead`.
   * @param stamped as in `DatagramSink.datagram`
   */
  encode: (target: Buffer, offset: number, source: Buffer, start: number, end: number, stamped: boolean) => number
  /** The frame to send on an idle tunnel so that both sides know it is alive. */
  keepalive: () => Buffer
}

/** How datagrams are put on a tunnel and found again. */
export interface Framing extends Encoding {
  readonly name: DatagramFraming
  /** Whether the other side answers `keepalive()`. */
  readonly isKeepaliveAnswered: boolean
  createDecoder: (sink: DatagramSink, options: DecoderOptions) => Decoder
  /** The frame that tells the other side why it is being closed; undefined where the framing has none. */
  closing: (code: number, text: string) => Buffer | undefined
  /** The frame that asks the other side to connect anew after so many milliseconds; undefined where there is none. */
  drain: (afterMs: number) => Buffer | undefined
  /** The frame that tells the other side something for its user; undefined where there is none. */
  notice: (code: number, text: string) => Buffer | undefined
}
