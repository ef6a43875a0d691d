import { constants } from 'node:http2'
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { WebSocketStream } from '../framing/websocket-stream.ts'
import { isHttp2, resetStream } from '../http2-stream.ts'
import { endAndLinger } from '../linger.ts'
import { closeCodeOf } from './close-code.ts'
import { holdReads } from '../held-reads.ts'
import { onEnd } from './on-end.ts'
import type { DetachReason } from './peer.ts'
import { isPlain } from './plain-socket.ts'
import { isShared, shareReads } from './shared-reads.ts'
import { stagingFor, writeStaged } from './staging.ts'

/** So many chunks a tunnel may hold before it has taken the first of them, however small they are: each takes memory beside its bytes. */
const MAX_CHUNKS = 16
/** A chunk that is a smaller part of its memory than this is copied before it is kept. */
const KEPT_PART = 1 / 8

/**
 * So much at once is written to what does not tell of a write that it has taken a part of: over HTTP/2, a slow reader would
 * seem not to read.
 */
const MAX_PIECE = 64 * 1024

/**
 * Copies what comes out of `from` into `to`, no faster than `to` takes it, and carries the end over.
 * @param onBytes called with the length of what is written
 */
export function forward (from: Duplex, to: Duplex, onBytes: (length: number) => void): void {
  const isToPlain = isPlain(to)
  const isBetweenPlain = isPlain(from) && isToPlain
  /** Since `to` had taken all. */
  let chunks = 0
  /** Of a chunk that is written in pieces. */
  let rest: Buffer | undefined
  const onTaken = (): void => {
    if (to.writableLength > 0 || to.destroyed) return
    if (rest === undefined) from.resume()
    else writePiece(rest)
  }
  const writePiece = (chunk: Buffer): void => {
    const piece = chunk.subarray(0, MAX_PIECE)
    rest = chunk.length > MAX_PIECE ? chunk.subarray(MAX_PIECE) : undefined
    onBytes(piece.length)
    to.write(piece, onTaken)
  }
  from.on('data', (chunk: Buffer) => {
    if (!isToPlain && chunk.length > MAX_PIECE) {
      holdReads(from)
      return writePiece(chunk)
    }
    onBytes(chunk.length)
    if (to.writableLength === 0) chunks = 0
    chunks++
    const hasRoom = writeChunk(to, chunk, isToPlain, chunks === MAX_CHUNKS ? onTaken : undefined)
    if (to.writableLength === 0) {
      if (isBetweenPlain) shareReads(from)
    } else if (chunks === MAX_CHUNKS || !hasRoom) {
      holdReads(from)
    }
  })
  to.on('drain', onTaken)
  onEnd(from, () => passEnd(from, to))
  if (to.writableNeedDrain) holdReads(from)
  else from.resume()
}

/** @param onTaken called when `to` has passed it on */
function writeChunk (to: Duplex, chunk: Buffer, isToPlain: boolean, onTaken: (() => void) | undefined): boolean {
  // A plain socket takes it at once, or is full; others keep it for a while in any case.
  const isKept = !isToPlain || to.writableLength > 0
  if (isKept && (isShared(chunk) || chunk.length < chunk.buffer.byteLength * KEPT_PART)) return to.write(copyOf(chunk), onTaken)
  if (!isShared(chunk)) return to.write(chunk, onTaken)
  const staging = stagingFor(chunk.length)
  return writeStaged(to as Socket, staging, chunk.copy(staging))
}

/** The same bytes in memory of their own. */
function copyOf (chunk: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(chunk.length)
  chunk.copy(copy)
  return copy
}

/** How long bytes wait for a client's first byte, in milliseconds. */
const HOLD_MS = 300

/**
 * Calls `then` when the first byte has come out of `tunnel`, or 300 ms have passed: a client of the HTTPUpgrade
 * transport may lose what arrives together with the 101.
 */
export function afterFirstByte (tunnel: Duplex, then: () => void): void {
  const release = (): void => {
    clearTimeout(timer)
    tunnel.off('data', release)
    tunnel.off('close', forget)
    then()
  }
  const forget = (): void => clearTimeout(timer)
  const timer = setTimeout(release, HOLD_MS)
  tunnel.on('data', release)
  tunnel.on('close', forget)
}

/** Between two WebSockets, code and reason of the Close frame pass through. */
function passEnd (from: Duplex, to: Duplex): void {
  const close = from instanceof WebSocketStream ? from.received : undefined
  if (close !== undefined && to instanceof WebSocketStream) to.endAs(close.code, close.reason)
  else to.end()
}

/** Ends a tunnel that leads nowhere, and tells why where that is possible. */
export function leave (tunnel: Duplex, reason: DetachReason, text: string): void {
  if (tunnel instanceof WebSocketStream) tunnel.closeAs(closeCodeOf(reason), text)
  else endAndLinger(tunnel)
}

/** Breaks a tunnel so that the other side sees that it broke, and does not take it for the end of the stream. */
export function abort (tunnel: Duplex, reason: DetachReason, text: string): void {
  if (tunnel instanceof WebSocketStream) return tunnel.closeAs(closeCodeOf(reason), text)
  if (isHttp2(tunnel)) return resetStream(tunnel, resetCodes[reason] ?? constants.NGHTTP2_CANCEL)
  // A RST can only be asked of TCP itself: a unix socket has no local address, and TLS tells by ending without
  // close_notify, to which not every client pays attention.
  const isTcp = tunnel instanceof Socket && !(tunnel instanceof TLSSocket) && tunnel.localAddress !== undefined
  if (!isTcp) tunnel.destroy()
  // While a FIN is being sent libuv refuses to reset, and Node would never close the socket then.
  else if (isEnding(tunnel)) tunnel.once('finish', () => tunnel.resetAndDestroy())
  else tunnel.resetAndDestroy()
}

/**
 * With which error a stream of HTTP/2 is reset (RFC 9113, section 7), where it is another one than CANCEL, which RFC 8441
 * (section 5) has for what would be a RST.
 */
const resetCodes: Partial<Record<DetachReason, number>> = {
  'target-failed': constants.NGHTTP2_CONNECT_ERROR,
  'partner-lost': constants.NGHTTP2_CONNECT_ERROR,
  limit: constants.NGHTTP2_ENHANCE_YOUR_CALM
}

/** Whether all is written and the end of the stream is on its way to the kernel. */
function isEnding ({ writableEnded, writableFinished, writableLength }: Duplex): boolean {
  return writableEnded && !writableFinished && writableLength === 0
}
