import type { Duplex } from 'node:stream'
import { holdReads } from '../internals/held-reads.ts'
import type { DetachReason } from './close-reasons.ts'
import { endAndLinger } from './linger.ts'
import { isShared } from './socket/shared-reads.ts'
import type { Farewell, Tunnel } from './tunnel.ts'

/** A chunk that is smaller than this part of its memory is copied before it has to wait. */
const KEPT_PART = 1 / 8

const MAX_WRITE = 64 * 1024

/** A tunnel on any Duplex, and the base class of the other kinds. */
export class StreamTunnel<Stream extends Duplex = Duplex> implements Tunnel {
  protected readonly stream: Stream

  constructor (stream: Stream) {
    this.stream = stream
  }

  get writableLength (): number {
    return this.stream.writableLength
  }

  get writableNeedDrain (): boolean {
    return this.stream.writableNeedDrain
  }

  get waiting (): number {
    return this.stream.writableLength
  }

  get systemQueueSize (): number {
    return 0
  }

  get maxWrite (): number {
    return MAX_WRITE
  }

  get isPaused (): boolean {
    return this.stream.isPaused()
  }

  get hasEnded (): boolean {
    return this.stream.readableEnded
  }

  get isFinished (): boolean {
    return this.stream.writableFinished
  }

  get isDestroyed (): boolean {
    return this.stream.destroyed
  }

  get isClosed (): boolean {
    return this.stream.closed
  }

  get farewell (): Farewell | undefined {
    return undefined
  }

  onData (listener: (chunk: Buffer) => void): void {
    this.stream.on('data', listener)
  }

  offData (listener: (chunk: Buffer) => void): void {
    this.stream.off('data', listener)
  }

  onEnd (listener: () => void): void {
    this.stream.on('end', () => {
      if (this.stream.destroyed) return
      if (this.wasReset()) this.stream.destroy(new Error('the connection was reset'))
      else listener()
    })
  }

  onDrain (listener: () => void): void {
    this.stream.on('drain', listener)
  }

  onError (listener: (error: Error) => void): void {
    this.stream.on('error', listener)
  }

  onClose (listener: () => void): void {
    this.stream.on('close', listener)
  }

  onSign (_listener: () => void): void {}

  hold (): void {
    holdReads(this.stream)
  }

  resume (): void {
    this.stream.resume()
  }

  shareReads (): void {}

  write (bytes: Buffer, onTaken?: () => void): boolean {
    return this.stream.write(bytes, onTaken)
  }

  pass (chunk: Buffer, onTaken?: () => void): boolean {
    const isCopied = isShared(chunk) || chunk.length < chunk.buffer.byteLength * KEPT_PART
    return this.stream.write(isCopied ? copyOf(chunk) : chunk, onTaken)
  }

  stage (_size: number): Buffer | undefined {
    return undefined
  }

  writeStaged (staging: Buffer, length: number): boolean {
    return this.write(staging.subarray(0, length))
  }

  cork (): void {
    this.stream.cork()
  }

  uncork (): void {
    this.stream.uncork()
  }

  end (_farewell?: Farewell): void {
    this.stream.end()
  }

  leave (_reason: DetachReason, _text: string, lastBytes?: Buffer): void {
    endAndLinger(this.stream, lastBytes)
  }

  abort (_reason: DetachReason, _text: string): void {
    this.stream.destroy()
  }

  destroy (): void {
    this.stream.destroy()
  }

  ping (): void {}

  /** True if the `end` event that just came was caused by a reset. */
  protected wasReset (): boolean {
    return false
  }
}

/** Copies a chunk into memory that nothing else uses. */
function copyOf (chunk: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(chunk.length)
  chunk.copy(copy)
  return copy
}
