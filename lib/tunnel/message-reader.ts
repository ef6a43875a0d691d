import type { Encoding } from '../framing/framing.ts'
import type { DetachReason } from './close-reasons.ts'

/** Takes what a `MessageReader` finds. */
export interface MessageSink {
  /** So many bytes have come out of the tunnel. */
  bytes: (length: number) => void
  /** One datagram, of any length, in memory of its own. */
  message: (datagram: Buffer) => void
  /** Nothing more comes: the other side has ended the tunnel, broken its rules, or is gone. */
  ended: (reason: DetachReason, text: string) => void
}

/** Brings datagrams out of a tunnel whose messages are datagrams: where they begin and end no framing of ours says. */
export interface MessageReader {
  /** What each datagram that is sent is put into, before it is written to the tunnel. */
  readonly encoding: Encoding
  /** Begins to read. */
  read: (sink: MessageSink) => void
  /** Tells the other side why, and ends the tunnel. */
  close: (reason: DetachReason, text: string) => void
}
