import { constants, type Http2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'

/** How a stream of HTTP/2 that is a tunnel ends and breaks, which Node shows in other ways than with a socket. */

export function isHttp2 (tunnel: Duplex): tunnel is Http2Stream {
  return 'rstCode' in tunnel
}

/** RFC 9113, section 7: by their number. */
const errorCodes = [
  'NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR', 'SETTINGS_TIMEOUT', 'STREAM_CLOSED', 'FRAME_SIZE_ERROR',
  'REFUSED_STREAM', 'CANCEL', 'COMPRESSION_ERROR', 'CONNECT_ERROR', 'ENHANCE_YOUR_CALM', 'INADEQUATE_SECURITY', 'HTTP_1_1_REQUIRED'
]

/** The name of an error code of HTTP/2. */
export function errorCodeName (code: number): string {
  return errorCodes[code] ?? `code ${code}`
}

/** Makes a RST_STREAM from the client an error: where Node is left to it, both sides seem to have ended the stream. */
export function failOnReset (stream: Http2Stream): void {
  stream.on('aborted', () => stream.destroy(new Error(`the client reset the stream: ${errorCodeName(stream.rstCode!)}`)))
}

/** Resets a stream. */
export function resetStream (stream: Http2Stream, code: number): void {
  // Node tells of it as it does when the client resets, and who destroys the stream then would do so before RST_STREAM is sent.
  stream.removeAllListeners('aborted')
  // Node also ends a stream that it resets, and that end must not look like one that the other side has sent.
  stream._final = (callback) => callback()
  // Not at once: called while Node closes another stream of the same session, it would make Node write empty frames for that one,
  // without end.
  setImmediate(() => stream.close(code))
}

/** Whether the end of a tunnel that has just come is not one that the other side has sent: Node also ends what is reset. */
export function isCutShort (tunnel: Duplex): boolean {
  return isHttp2(tunnel) && (tunnel.destroyed || tunnel.rstCode !== constants.NGHTTP2_NO_ERROR)
}

/**
 * Whether all that was written to a tunnel that is closed now has gone out: Node closes a stream of HTTP/2 when both sides have
 * ended it, at times before it calls the last write finished.
 */
export function isFinished (tunnel: Duplex): boolean {
  return tunnel.writableFinished || (isHttp2(tunnel) && tunnel.writableEnded && tunnel.rstCode === constants.NGHTTP2_NO_ERROR)
}
