import type { DetachReason } from './close-reasons.ts'

/** What the other side said when it ended its stream: the Close frame of a WebSocket. */
export interface Farewell {
  /** Undefined where it gave no code. */
  code: number | undefined
  /** Without control characters. */
  reason: string
}

/**
 * What the hub needs of a tunnel, and all it knows of one. Each kind of connection has an implementation in this folder;
 * a new kind is one more.
 *
 * Nothing is read before there is an `onData` listener and `resume`, or `onData` alone, has made the tunnel flow.
 */
export interface Tunnel {
  /** Bytes written and not passed on yet. */
  readonly writableLength: number
  /** Whether to write nothing more until `onDrain`. */
  readonly writableNeedDrain: boolean
  /** Bytes written that the system, or what carries the tunnel, has not taken. At least `writableLength`. */
  readonly waiting: number
  /** Changes while the system takes parts of a single large write; 0 where that cannot be told. */
  readonly systemQueueSize: number
  /** The largest chunk to write at once, in bytes: how much of a write was taken is only told when all of it was. */
  readonly maxWrite: number
  readonly isPaused: boolean
  /** Whether the other side's end of the stream has come, and all before it was delivered. */
  readonly hasEnded: boolean
  /** Of a closed tunnel: whether all that was written, and the end, has gone out. */
  readonly isFinished: boolean
  readonly isDestroyed: boolean
  readonly isClosed: boolean
  /** Once `onEnd` was called. */
  readonly farewell: Farewell | undefined

  /** A chunk may lie in memory that the next one is written to; `isShared` tells. It is valid during the call. */
  onData: (listener: (chunk: Buffer) => void) => void
  offData: (listener: (chunk: Buffer) => void) => void
  /** The other side has ended its stream. A reset is an error, never an end. */
  onEnd: (listener: () => void) => void
  onDrain: (listener: () => void) => void
  onError: (listener: (error: Error) => void) => void
  /** Called once, when nothing more comes or goes. */
  onClose: (listener: () => void) => void
  /** Some sign of life has come beside data. */
  onSign: (listener: () => void) => void

  /** Stops reading; what has been read already waits in one piece of memory. */
  hold: () => void
  resume: () => void
  /** Lets chunks come in memory that all tunnels share, where this kind can. Called after a chunk. */
  shareReads: () => void

  /**
   * Writes memory that is the tunnel's from now on.
   * @param onTaken called when it was passed on
   * @returns false if nothing more should be written until `onDrain`
   */
  write: (bytes: Buffer, onTaken?: () => void) => boolean
  /** The same for a chunk that came out of another tunnel, whose memory may be shared, or large beside it: copied where it has to wait. */
  pass: (chunk: Buffer, onTaken?: () => void) => boolean
  /**
   * Memory to put a write of up to `size` bytes together in, which `writeStaged` sends. Undefined where the tunnel would
   * keep it for a while: `write` memory of your own.
   */
  stage: (size: number) => Buffer | undefined
  writeStaged: (staging: Buffer, length: number) => boolean
  /** Until `uncork`, writes leave together. */
  cork: () => void
  uncork: () => void

  /** Ends this side of the stream. @param farewell passed on where the kind can */
  end: (farewell?: Farewell) => void
  /**
   * Ends the tunnel in order: the other side gets the time to read what was written last.
   * @param lastBytes written before the end
   */
  leave: (reason: DetachReason, text: string, lastBytes?: Buffer) => void
  /** Breaks the tunnel so that the other side does not take it for the end of the stream. */
  abort: (reason: DetachReason, text: string) => void
  destroy: () => void
  /** Asks the other side for a sign of life, where this kind can. */
  ping: () => void
}
