import { constants, type Http2Stream } from 'node:http2'
import { resetCodeOf, type DetachReason } from '../close-reasons.ts'
import { isFinished, resetStream } from './http2-stream.ts'
import { StreamTunnel } from '../stream-tunnel.ts'

/** A tunnel on an HTTP/2 stream. */
export class Http2StreamTunnel extends StreamTunnel<Http2Stream> {
  override get isFinished (): boolean {
    return isFinished(this.stream)
  }

  override onEnd (listener: () => void): void {
    this.stream.on('end', () => {
      // Node also emits `end` for a reset stream. The reset is reported as an error.
      if (!this.stream.destroyed && this.stream.rstCode === constants.NGHTTP2_NO_ERROR) listener()
    })
  }

  override abort (reason: DetachReason, _text: string): void {
    resetStream(this.stream, resetCodeOf(reason))
  }
}
