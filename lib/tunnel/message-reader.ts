import type { Encoding } from '../framing/framing.ts'
import type { DetachReason } from './close-reasons.ts'

/** Receives what a `MessageReader` finds. */
export interface MessageSink {
  /** The tunnel received `length` bytes. */
  bytes: (length: number) => void
  /** One datagram of any length. Nothing else uses its memory. */
  message: (datagram: Buffer) => void
  /** Nothing more will arrive: the other side ended the tunnel, broke the protocol, or is gone. */
  ended: (reason: DetachReason, text: string) => void
}

/** Reads datagrams from a tunnel that already carries messages, so that they need no framing of ours. */
export interface MessageReader {
  /** Encodes each outgoing datagram before it is written to the tunnel. */
  readonly encoding: Encoding
  /** Starts reading. */
  read: (sink: MessageSink) => void
  /** Tells the other side the reason, and ends the tunnel. */
  close: (reason: DetachReason, text: string) => void
}
