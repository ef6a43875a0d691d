import { constants, type Http2Stream } from 'node:http2'

/** How a stream of HTTP/2 that is a tunnel ends and breaks, which Node shows in other ways than with a socket. */

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

/**
 * Whether all that was written to a stream that is closed now has gone out: Node closes one when both sides have ended it, at times
 * before it calls the last write finished.
 */
export function isFinished (stream: Http2Stream): boolean {
  return stream.writableFinished || (stream.writableEnded && stream.rstCode === constants.NGHTTP2_NO_ERROR)
}
