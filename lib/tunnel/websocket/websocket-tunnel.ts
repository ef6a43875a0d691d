import { webSocketCodeOf, type DetachReason } from '../close-reasons.ts'
import { StreamTunnel } from '../stream-tunnel.ts'
import type { Farewell } from '../tunnel.ts'
import type { WebSocketStream } from './websocket-stream.ts'

/** A tunnel on the byte stream in a WebSocket's messages. */
export class WebSocketTunnel extends StreamTunnel<WebSocketStream> {
  override get waiting (): number {
    return this.stream.waiting
  }

  override get farewell (): Farewell | undefined {
    return this.stream.received
  }

  override onSign (listener: () => void): void {
    this.stream.onSign(listener)
  }

  override end (farewell?: Farewell): void {
    if (farewell === undefined) this.stream.end()
    else this.stream.endAs(farewell.code, farewell.reason)
  }

  override leave (reason: DetachReason, text: string): void {
    this.stream.closeAs(webSocketCodeOf(reason), text)
  }

  override abort (reason: DetachReason, text: string): void {
    this.stream.closeAs(webSocketCodeOf(reason), text)
  }

  override ping (): void {
    this.stream.ping()
  }
}
