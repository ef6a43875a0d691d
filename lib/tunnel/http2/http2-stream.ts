import { constants, type Http2Stream } from 'node:http2'

/** Ending and resetting an HTTP/2 stream that is a tunnel. Node reports both differently than for a socket. */

/** RFC 9113, section 7. The index is the code. */
const errorCodes = [
  'NO_ERROR', 'PROTOCOL_ERROR', 'INTERNAL_ERROR', 'FLOW_CONTROL_ERROR', 'SETTINGS_TIMEOUT', 'STREAM_CLOSED', 'FRAME_SIZE_ERROR',
  'REFUSED_STREAM', 'CANCEL', 'COMPRESSION_ERROR', 'CONNECT_ERROR', 'ENHANCE_YOUR_CALM', 'INADEQUATE_SECURITY', 'HTTP_1_1_REQUIRED'
]

/** Returns the name of an HTTP/2 error code, or `code N` if it is unknown. */
export function errorCodeName (code: number): string {
  return errorCodes[code] ?? `code ${code}`
}

/** Turns a RST_STREAM from the client into an error. By default, Node makes it look as if both sides had ended the stream. */
export function failOnReset (stream: Http2Stream): void {
  stream.on('aborted', () => stream.destroy(new Error(`the client reset the stream: ${errorCodeName(stream.rstCode!)}`)))
}

/** Resets a stream with this HTTP/2 error code. */
export function resetStream (stream: Http2Stream, code: number): void {
  // Node emits `aborted` here too. A listener that destroys the stream would do so before Node sends RST_STREAM.
  stream.removeAllListeners('aborted')
  // Node also ends a stream that it resets. The other side must not take that for an end of the stream.
  stream._final = (callback) => callback()
  // Deferred: a call while Node closes another stream of the session would make Node write empty frames for that stream
  // forever.
  setImmediate(() => stream.close(code))
}

/**
 * True if a closed stream has sent everything written to it. Node closes a stream when both sides have ended it, sometimes
 * before it emits `finish`.
 */
export function isFinished (stream: Http2Stream): boolean {
  return stream.writableFinished || (stream.writableEnded && stream.rstCode === constants.NGHTTP2_NO_ERROR)
}
