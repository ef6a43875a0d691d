import type { DatagramSink, FramingFault, Framing } from '../../lib/framing/framing.ts'
import { clearReserved } from '../../lib/framing/wireguard.ts'
import type { Mailbox } from './mailbox.ts'

export interface ControlFrame {
  type: number
  payload: Buffer
}

/** Notes all that a decoder finds, in order. */
export class Sink implements DatagramSink {
  readonly datagrams: Buffer[] = []
  /** One line for each thing found: what it is, and how long. */
  readonly found: string[] = []
  readonly controls: ControlFrame[] = []

  datagram (chunk: Buffer, _frame: number, start: number, end: number, stamped: boolean): void {
    const datagram = Buffer.from(chunk.subarray(start, end))
    if (stamped) clearReserved(datagram, 0)
    this.datagrams.push(datagram)
    this.found.push(`datagram ${datagram.length}`)
  }

  tooLarge (): void {
    this.found.push('too-large')
  }

  keepalive (): void {
    this.found.push('keepalive')
  }

  control (type: number, chunk: Buffer, start: number, end: number): void {
    this.controls.push({ type, payload: Buffer.from(chunk.subarray(start, end)) })
    this.found.push(`control ${type.toString(16)} ${end - start}`)
  }
}

/** Where the end of a tunnel puts what it finds. */
export interface Mailboxes {
  readonly datagrams: Mailbox<Buffer>
  readonly controls: Mailbox<ControlFrame>
  readonly keepalives: Mailbox<true>
}

/** Sorts what a decoder finds into mailboxes, as copies; nothing may be dropped. */
export function sinkOf ({ datagrams, controls, keepalives }: Mailboxes): DatagramSink {
  return {
    datagram: (chunk, _frame, start, end, stamped) => {
      const datagram = Buffer.from(chunk.subarray(start, end))
      if (stamped) clearReserved(datagram, 0)
      datagrams.push(datagram)
    },
    tooLarge: () => { throw new Error('too large') },
    keepalive: () => keepalives.push(true),
    control: (type, chunk, start, end) => controls.push({ type, payload: Buffer.from(chunk.subarray(start, end)) })
  }
}

/** What a new decoder makes of these chunks, and of the end of the stream. */
export function decode (framing: Framing, chunks: Buffer[], maxPacketSize = 65535): { sink: Sink, fault: FramingFault | undefined } {
  const sink = new Sink()
  const decoder = framing.createDecoder(sink, { maxPacketSize })
  for (const chunk of chunks) {
    const fault = decoder.push(chunk)
    if (fault !== undefined) return { sink, fault }
  }
  return { sink, fault: decoder.end() }
}

/** The chunks of one byte each. */
export function byteByByte (bytes: Buffer): Buffer[] {
  return Array.from(bytes, (_, position) => bytes.subarray(position, position + 1))
}
