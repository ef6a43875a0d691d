import type { DatagramSink, Decoder, DecoderOptions, Encoding, Framing } from '../../framing/framing.ts'
import type { ConnectionEnd } from './connection-end.ts'

/** What a connection is told beside datagrams. */
export interface ConnectionSink extends DatagramSink {
  /** An answer is owed; only the latest counts. */
  owePong: (frame: Buffer) => void
  /** The other side answered a ping. */
  ponged: () => void
  /** The other side has closed; `finalBytes` is the answer to that. */
  ended: (end: ConnectionEnd, finalBytes: Buffer) => void
}

/** How datagrams travel on a connection. */
export interface ConnectionFraming extends Encoding {
  readonly name: Framing['name'] | 'websocket'
  /** As in `Framing`. */
  readonly isKeepaliveAnswered: boolean
  createDecoder: (sink: ConnectionSink, options: DecoderOptions) => Decoder
  /** As in `Framing`. */
  closing: (code: number, text: string) => Buffer | undefined
  /** The bytes that end this side; absent where the end of the stream does. */
  ending?: () => Buffer
}
