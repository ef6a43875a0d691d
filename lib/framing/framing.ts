/**
 * The interface of a framing: a decoder that finds datagrams in a tunnel's bytes, and an encoder that writes
 * them. A framing knows nothing of peers. It passes what it finds to a `DatagramSink`.
 */

/** The framings that carry datagrams; the table is in `framings.ts`. */
export type DatagramFraming = 'wg' | 'len16'

/** The framings that can be negotiated with `Spanza-Framing`; `raw` means none. */
export type FramingName = DatagramFraming | 'raw'

/** The reason a decoder stopped reading a tunnel. */
export interface FramingFault {
  /** The close reason, a key of the table in `tunnel/close-reasons.ts`. */
  reason: 'protocol-error' | 'unstamped'
  /** Describes the invalid bytes, for the log and the closing frame. */
  text: string
}

/** Receives what a decoder finds. The buffers belong to the decoder's caller: do not write to them. */
export interface DatagramSink {
  /**
   * One datagram. `chunk[frame..end)` is the whole frame, `chunk[start..end)` the datagram itself.
   * `stamped`: the datagram is WireGuard transport data whose three reserved bytes hold its length on the
   * tunnel. In the datagram they are zero.
   */
  datagram: (chunk: Buffer, frame: number, start: number, end: number, stamped: boolean) => void
  /** The decoder skipped a datagram because it is larger than `maxPacketSize`. */
  tooLarge: () => void
  /** A keepalive (`len16`). It needs no reply. */
  keepalive?: () => void
  /** A control frame (`wg`) of this type (0x80 to 0xff). `chunk[start..end)` is its payload. */
  control?: (type: number, chunk: Buffer, start: number, end: number) => void
}

/** Finds datagrams in a byte stream that arrives in chunks of any size. Buffers at most one frame of the allowed size. */
export interface Decoder {
  /** Takes the next bytes. Returns a fault if they are invalid: do not push more after that. */
  push: (chunk: Buffer) => FramingFault | undefined
  /** Call at the end of the stream. Returns a fault if the stream ended inside a frame. */
  end: () => FramingFault | undefined
}

export interface DecoderOptions {
  /** Bytes, 1 to 65535. The decoder skips larger datagrams and calls `tooLarge`. */
  maxPacketSize: number
}

/** Writes datagrams to a tunnel. */
export interface Encoding {
  /** The most bytes a frame adds to its datagram. */
  readonly maxOverhead: number
  /**
   * Writes the datagram `source[start..end)`, 1 to 65535 bytes, into `target` at `offset`. Returns the offset
   * after the frame. `target` must have room for the datagram and `maxOverhead`.
   * @param stamped as in `DatagramSink.datagram`
   */
  encode: (target: Buffer, offset: number, source: Buffer, start: number, end: number, stamped: boolean) => number
  /** The frame to send on an idle tunnel, so that both sides know it is alive. */
  keepalive: () => Buffer
}

/** Writes datagrams to a tunnel, and reads them back. */
export interface Framing extends Encoding {
  readonly name: DatagramFraming
  /** Whether the other side answers `keepalive()`. */
  readonly isKeepaliveAnswered: boolean
  createDecoder: (sink: DatagramSink, options: DecoderOptions) => Decoder
  /** The frame that tells the other side why the tunnel closes. Undefined if the framing has no such frame. */
  closing: (code: number, text: string) => Buffer | undefined
  /** The frame that asks the other side to reconnect after `afterMs` milliseconds. Undefined if the framing has none. */
  drain: (afterMs: number) => Buffer | undefined
  /** The frame that carries a notice for the other side's user. Undefined if the framing has none. */
  notice: (code: number, text: string) => Buffer | undefined
}
