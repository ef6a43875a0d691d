import type { DetachReason } from './close-reasons.ts'

/** The Close frame with which the other side ended its WebSocket. */
export interface Farewell {
  /** Undefined if it has no code. */
  code: number | undefined
  /** Without control characters. */
  reason: string
}

/**
 * The hub's interface to a tunnel. This folder has one implementation for each kind of connection.
 *
 * Nothing is read before `onData` or `resume` makes the tunnel flow.
 */
export interface Tunnel {
  /** Bytes written that wait in the stream. */
  readonly writableLength: number
  /** True if nothing more should be written until `onDrain`. */
  readonly writableNeedDrain: boolean
  /** Bytes written that neither the system nor the carrying stream has taken. At least `writableLength`. */
  readonly waiting: number
  /** Bytes queued in libuv. Changes while the system takes parts of a single large write; 0 if the kind cannot tell. */
  readonly systemQueueSize: number
  /** The largest chunk to write at once, in bytes. Progress shows only when a whole write has been taken. */
  readonly maxWrite: number
  readonly isPaused: boolean
  /** True once everything up to the other side's end of the stream has been delivered. */
  readonly hasEnded: boolean
  /** For a closed tunnel: true if everything written, and the end, was sent. */
  readonly isFinished: boolean
  readonly isDestroyed: boolean
  readonly isClosed: boolean
  /** Available once `onEnd` was called. */
  readonly farewell: Farewell | undefined

  /** A chunk is valid during the call only: the next one may overwrite its memory. `isShared` tells whether it will. */
  onData: (listener: (chunk: Buffer) => void) => void
  offData: (listener: (chunk: Buffer) => void) => void
  /** Called when the other side has ended its stream. A reset is an error, never an end. */
  onEnd: (listener: () => void) => void
  onDrain: (listener: () => void) => void
  onError: (listener: (error: Error) => void) => void
  /** Called once, when the tunnel is closed. */
  onClose: (listener: () => void) => void
  /** Called for signs of life other than data. */
  onSign: (listener: () => void) => void

  /** Pauses reading. Bytes that are already read wait in one piece of memory. */
  hold: () => void
  resume: () => void
  /** Makes the tunnel read into memory that all tunnels share, if this kind can. Call it after a chunk. */
  shareReads: () => void

  /**
   * Writes memory that the caller will not touch again.
   * @param onTaken called when the write was taken
   * @returns false if nothing more should be written until `onDrain`
   */
  write: (bytes: Buffer, onTaken?: () => void) => boolean
  /** Like `write`, for a chunk of another tunnel. Copies the chunk where it could wait in shared or much larger memory. */
  pass: (chunk: Buffer, onTaken?: () => void) => boolean
  /**
   * Returns memory for a write of up to `size` bytes, which `writeStaged` sends. Undefined if the write could have to
   * wait: then allocate memory, and call `write`.
   */
  stage: (size: number) => Buffer | undefined
  writeStaged: (staging: Buffer, length: number) => boolean
  /** Writes until `uncork` leave together. */
  cork: () => void
  uncork: () => void

  /** Ends this side of the stream. @param farewell sent if this kind can */
  end: (farewell?: Farewell) => void
  /**
   * Ends the tunnel gracefully, and leaves the other side time to read the last bytes.
   * @param lastBytes written before the end
   */
  leave: (reason: DetachReason, text: string, lastBytes?: Buffer) => void
  /** Breaks the tunnel. The other side sees an error where the kind can show one, not an end of the stream. */
  abort: (reason: DetachReason, text: string) => void
  destroy: () => void
  /** Asks the other side for a sign of life, if this kind can. */
  ping: () => void
}
