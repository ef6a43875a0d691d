import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { isPlain, wasReset, writeQueueSize } from '../../internals/plain-socket.ts'
import type { DetachReason } from '../close-reasons.ts'
import { isShared, shareReads } from './shared-reads.ts'
import { stagingFor, writeStaged } from './staging.ts'
import { StreamTunnel } from '../stream-tunnel.ts'
import type { Tunnel } from '../tunnel.ts'

/** Makes the tunnel on an HTTP/1.1 connection, or on a connection to a target. */
export function socketTunnel (socket: Socket): Tunnel {
  return socket instanceof TLSSocket ? new TlsTunnel(socket) : new SocketTunnel(socket)
}

/** A tunnel on TLS. Aborting it ends TCP without close_notify. Not every client notices that. */
class TlsTunnel extends StreamTunnel<TLSSocket> {
  override get systemQueueSize (): number {
    return writeQueueSize(this.stream)
  }
}

/**
 * A tunnel on a TCP connection or a unix socket. For an unwrapped OS socket, `writableLength` covers everything still
 * unsent. So memory for writes can be reused, and large writes need no splitting.
 */
class SocketTunnel extends StreamTunnel<Socket> {
  readonly #isPlain: boolean

  constructor (socket: Socket) {
    super(socket)
    this.#isPlain = isPlain(socket)
  }

  override get systemQueueSize (): number {
    return writeQueueSize(this.stream)
  }

  override get maxWrite (): number {
    return this.#isPlain ? Infinity : super.maxWrite
  }

  override shareReads (): void {
    shareReads(this.stream)
  }

  override pass (chunk: Buffer, onTaken?: () => void): boolean {
    if (!this.#isPlain || this.stream.writableLength > 0) return super.pass(chunk, onTaken)
    return passAtOnce(this.stream, chunk, onTaken)
  }

  override stage (size: number): Buffer | undefined {
    return this.#isPlain && this.stream.writableLength === 0 ? stagingFor(size) : undefined
  }

  override writeStaged (staging: Buffer, length: number): boolean {
    return writeStaged(this.stream, staging, length)
  }

  override abort (_reason: DetachReason, _text: string): void {
    const socket = this.stream
    // Only TCP can be reset; a unix socket has no local address.
    if (socket.localAddress === undefined) socket.destroy()
    // While it sends a FIN, libuv refuses to reset, and Node would never close the socket.
    else if (isEnding(socket)) socket.once('finish', () => socket.resetAndDestroy())
    else socket.resetAndDestroy()
  }

  protected override wasReset (): boolean {
    return wasReset(this.stream)
  }
}

function passAtOnce (socket: Socket, chunk: Buffer, onTaken: (() => void) | undefined): boolean {
  if (!isShared(chunk)) return socket.write(chunk, onTaken)
  const staging = stagingFor(chunk.length)
  return writeStaged(socket, staging, chunk.copy(staging))
}

/** True while only the end of the stream is still on its way to the kernel. */
function isEnding ({ writableEnded, writableFinished, writableLength }: Socket): boolean {
  return writableEnded && !writableFinished && writableLength === 0
}
