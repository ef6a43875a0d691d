import type { Decoder, FramingFault } from './framing.ts'

/**
 * Splits a byte stream into frames, for framings whose frames begin with a header of fixed size.
 * A frame that lies whole in one chunk is not copied. A frame that spans chunks is assembled in a buffer of
 * exactly its size. A skipped frame is never buffered.
 */
export abstract class StreamDecoder implements Decoder {
  readonly #headerLength: number
  /** Holds a header that spans chunks. Allocated on first use. */
  #header: Buffer | undefined
  #headerHeld = 0
  #frame: Buffer | undefined
  #frameHeld = 0
  #skip = 0
  /** Set by `measure` when it returns 0. */
  protected fault: FramingFault | undefined

  constructor (headerLength: number) {
    this.#headerLength = headerLength
  }

  /**
   * Reads the frame header at `position`.
   * @returns the length of the frame with its header; negative to skip that many bytes; 0 after setting `fault`
   */
  protected abstract measure (buffer: Buffer, position: number): number

  /** Handles one whole frame, `buffer[position..end)`. */
  protected abstract take (buffer: Buffer, position: number, end: number): void

  push (chunk: Buffer): FramingFault | undefined {
    let position = 0
    if (this.#skip > 0 || this.#frame !== undefined || this.#headerHeld > 0) {
      position = this.#resume(chunk)
      if (this.fault !== undefined) return this.fault
    }
    const length = chunk.length
    const lastHeader = length - this.#headerLength
    while (position <= lastHeader) {
      const size = this.measure(chunk, position)
      if (size > 0) {
        const end = position + size
        if (end > length) {
          this.#hold(chunk, position, size)
          return
        }
        this.take(chunk, position, end)
        position = end
      } else if (size < 0) {
        position -= size
        if (position > length) {
          this.#skip = position - length
          return
        }
      } else {
        return this.fault
      }
    }
    if (position < length) this.#headerHeld = chunk.copy(this.#header ??= Buffer.alloc(this.#headerLength), 0, position)
  }

  end (): FramingFault | undefined {
    if (this.#skip > 0 || this.#frame !== undefined || this.#headerHeld > 0) {
      return { reason: 'protocol-error', text: 'the stream ended inside a frame' }
    }
  }

  #hold (chunk: Buffer, position: number, size: number): void {
    this.#frame = Buffer.allocUnsafeSlow(size)
    this.#frameHeld = chunk.copy(this.#frame, 0, position)
  }

  /** Completes the header, frame or skip that earlier chunks began. Returns the position after it in `chunk`. */
  #resume (chunk: Buffer): number {
    let position = 0
    if (this.#headerHeld > 0) {
      position = Math.min(this.#headerLength - this.#headerHeld, chunk.length)
      const header = this.#header!
      this.#headerHeld += chunk.copy(header, this.#headerHeld, 0, position)
      if (this.#headerHeld < this.#headerLength) return position
      this.#headerHeld = 0
      const size = this.measure(header, 0)
      if (size === 0) return position
      if (size < 0) this.#skip = -size - this.#headerLength
      else this.#hold(header, 0, size)
    }
    if (this.#skip > 0) {
      const skipped = Math.min(this.#skip, chunk.length - position)
      this.#skip -= skipped
      return position + skipped
    }
    const frame = this.#frame
    if (frame === undefined) return position
    const copied = chunk.copy(frame, this.#frameHeld, position)
    this.#frameHeld += copied
    if (this.#frameHeld === frame.length) {
      this.#frame = undefined
      this.take(frame, 0, frame.length)
    }
    return position + copied
  }
}
