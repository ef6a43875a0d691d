import { Duplex, type Writable } from 'node:stream'
import * as ws from 'ws'
import { WebSocket, type WebSocketServer } from 'ws'
import { BINARY_FRAME } from '../framing/websocket-frames.ts'

/**
 * Uses undocumented parts of ws 8.23: creates a WebSocket on a stream after another handshake, reads frames without a
 * WebSocket, and negotiates permessage-deflate.
 *
 * `canOpenOnStreams` is false if the installed ws differs. The relay then accepts WebSockets over HTTP/1.1 only, and the
 * client opens none.
 */

/** The permessage-deflate (RFC 7692) state of one WebSocket. @types/ws lacks it. */
export interface Deflate {
  /** A message that inflates to more bytes than this closes the WebSocket with 1009. 0 means no limit. */
  _maxPayload: number
  params: object
  accept: (offers: object[]) => void
}

interface WsExports {
  Receiver: new (options: object) => Writable
  extension: { parse: (header: string) => Record<string, object[]>, format: (extensions: Record<string, object[]>) => string }
  PerMessageDeflate: new (options: object) => Deflate
}

/** `Receiver` parses frames, `extension` parses the header Sec-WebSocket-Extensions. @types/ws lacks all three. */
const { Receiver, extension, PerMessageDeflate } = ws as unknown as WsExports
const DEFLATE_NAME = 'permessage-deflate'

/**
 * Reads the frames of one side. Emits `message`, `ping`, `pong` and `conclude`.
 * @param options `maxPayload`: the largest message, in bytes
 */
export function frameReceiver (options: { maxPayload: number }): Writable {
  return new Receiver({ ...MESSAGE_PIECES, ...options })
}

/** The most chunks and fragments of one message. ws holds a piece of memory for each. */
export const MESSAGE_PIECES = { maxBufferedChunks: 4096, maxFragments: 1024 }

/** The WebSocket class of ws, or of a server's option `WebSocket`. */
export type WebSocketClass = new (address: null, protocols: undefined, options: object) => WebSocket

interface WebSocketInternals {
  _isServer: boolean
  _protocol: string
  _extensions: Record<string, Deflate>
  setSocket: (stream: Duplex, head: Buffer, options: object) => void
}

/** The result of the handshake. */
export interface StreamSettings {
  isServer: boolean
  protocol?: string | undefined
  deflate?: Deflate | undefined
}

/**
 * Creates a WebSocket on a stream whose handshake is complete.
 * @param options the options of `WebSocketServer` that apply to a WebSocket
 */
export function webSocketOn (stream: Duplex, WebSocketClass: WebSocketClass, options: object, { isServer, protocol, deflate }: StreamSettings): WebSocket {
  const webSocket = new WebSocketClass(null, undefined, options)
  const internals = webSocket as unknown as WebSocketInternals
  internals._isServer = isServer
  if (protocol !== undefined) internals._protocol = protocol
  if (deflate !== undefined) internals._extensions = { [DEFLATE_NAME]: deflate }
  internals.setSocket(stream, Buffer.alloc(0), options)
  return webSocket
}

/**
 * Limits the inflated size of messages on a WebSocket with permessage-deflate, in bytes. The WebSocket may come from another
 * copy of ws. If that copy's internals differ, only its server's limit applies.
 */
export function limitInflated (webSocket: WebSocket, bytes: number): void {
  const deflate = (webSocket as unknown as Partial<WebSocketInternals>)._extensions?.[DEFLATE_NAME]
  if (deflate !== undefined && !(deflate._maxPayload > 0 && deflate._maxPayload < bytes)) deflate._maxPayload = bytes
}

/**
 * Negotiates permessage-deflate.
 * @param maxPayload the largest inflated size of a message, in bytes
 * @param offers the client's Sec-WebSocket-Extensions
 * @returns the compressor and the header of the answer; undefined if no offer is acceptable
 */
export function agreeOnDeflate (maxPayload: number, offers: string): { deflate: Deflate, header: string } | undefined {
  try {
    const offered = extension.parse(offers)[DEFLATE_NAME]
    if (offered === undefined) return
    const deflate = new PerMessageDeflate({ isServer: true, maxPayload })
    deflate.accept(offered)
    return { deflate, header: extension.format({ [DEFLATE_NAME]: [deflate.params] }) }
  } catch {
    // No offer is acceptable, so messages stay uncompressed.
  }
}

/** `handleUpgrade` of ws calls `completeUpgrade`, which calls the callback. */
interface Upgrading extends WebSocketServer {
  completeUpgrade: (...args: unknown[]) => void
}

/**
 * Lets `server` open a WebSocket. The app's functions may be asynchronous (`verifyClient` with two parameters), and may throw.
 * An error that they throw later would end the process, so it goes to `onFault`.
 * @param lines headers for the 101
 * @throws any error that they throw synchronously
 */
export function openWebSocket (
  server: WebSocketServer, request: Parameters<WebSocketServer['handleUpgrade']>[0], socket: Duplex, lines: readonly string[],
  onOpen: (webSocket: WebSocket) => void, onFault: (error: unknown) => void
): void {
  let isLater = false
  // Wrap the server for this request. A listener for each request would remain until the app has decided.
  const own = Object.create(server) as Upgrading
  own.emit = (name: string, ...args: unknown[]) => {
    if (name === 'headers') (args[0] as string[]).push(...lines)
    return server.emit(name, ...args)
  }
  own.completeUpgrade = (...args) => {
    try {
      Reflect.apply((server as Upgrading).completeUpgrade, own, args)
    } catch (error) {
      if (!isLater) throw error
      onFault(error)
    }
  }
  own.handleUpgrade(request, socket, Buffer.alloc(0), onOpen)
  isLater = true
}

/** True if the installed ws works as this file expects. */
export const canOpenOnStreams = isAsExpected()

function isAsExpected (): boolean {
  try {
    const stream = new Duplex({ read () {}, write (_chunk, _encoding, callback) { callback() } })
    const webSocket = webSocketOn(stream, WebSocket as unknown as WebSocketClass, {}, { isServer: false })
    const isOpen = webSocket.readyState === WebSocket.OPEN
    webSocket.terminate()
    let lengthRead = 0
    const receiver = frameReceiver({ maxPayload: 1 })
    receiver.on('message', (message: Buffer) => { lengthRead = message.length })
    receiver.write(Buffer.from([BINARY_FRAME, 1, 0]))
    return isOpen && lengthRead === 1
  } catch {
    return false
  }
}

if (!canOpenOnStreams) {
  process.emitWarning('fastify-spanza-relay: the installed ws is not as expected (8.23), so WebSockets work at the relay over HTTP/1.1 only, and not in the client')
}
