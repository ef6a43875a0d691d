import { Duplex, type Writable } from 'node:stream'
import * as ws from 'ws'
import { WebSocket, type WebSocketServer } from 'ws'
import { BINARY_FRAME } from '../framing/websocket-frames.ts'

/**
 * What the documentation of ws does not promise: to make a WebSocket of a stream whose handshake was made elsewhere, to read
 * frames without a WebSocket, and to agree on permessage-deflate. It is written for ws 8.23.
 *
 * `canOpenOnStreams` is false where the installed ws differs. The relay then takes WebSockets over HTTP/1.1 only, and the client
 * opens none.
 */

/** permessage-deflate (RFC 7692) of one WebSocket; @types/ws lacks it. */
export interface Deflate {
  /** A message that inflates to more bytes than this closes the WebSocket with 1009; 0: no limit. */
  _maxPayload: number
  params: object
  accept: (offers: object[]) => void
}

interface WsExports {
  Receiver: new (options: object) => Writable
  extension: { parse: (header: string) => Record<string, object[]>, format: (extensions: Record<string, object[]>) => string }
  PerMessageDeflate: new (options: object) => Deflate
}

/** `Receiver` reads frames, `extension` the header Sec-WebSocket-Extensions; @types/ws lacks all three. */
const { Receiver, extension, PerMessageDeflate } = ws as unknown as WsExports
const DEFLATE_NAME = 'permessage-deflate'

/** Reads the frames of one side; emits `message`, `ping`, `pong` and `conclude`. */
export function frameReceiver (options: { maxPayload: number }): Writable {
  return new Receiver({ ...MESSAGE_PIECES, ...options })
}

/** The limits of what one message may consist of: ws holds a piece of memory for each. */
export const MESSAGE_PIECES = { maxBufferedChunks: 4096, maxFragments: 1024 }

/** The class that ws, or a server's option `WebSocket`, makes WebSockets of. */
export type WebSocketClass = new (address: null, protocols: undefined, options: object) => WebSocket

interface WebSocketInternals {
  _isServer: boolean
  _protocol: string
  _extensions: Record<string, Deflate>
  setSocket: (stream: Duplex, head: Buffer, options: object) => void
}

/** What the handshake has settled. */
export interface StreamSettings {
  isServer: boolean
  protocol?: string | undefined
  deflate?: Deflate | undefined
}

/**
 * Makes a WebSocket of a stream whose handshake is done.
 * @param options those of `WebSocketServer` that concern a WebSocket
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
 * Limits what compressed messages of a WebSocket may inflate to, where it has agreed on permessage-deflate. It may come from
 * another copy of ws: where that differs, the limit of its server holds alone.
 */
export function limitInflated (webSocket: WebSocket, bytes: number): void {
  const deflate = (webSocket as unknown as Partial<WebSocketInternals>)._extensions?.[DEFLATE_NAME]
  if (deflate !== undefined && !(deflate._maxPayload > 0 && deflate._maxPayload < bytes)) deflate._maxPayload = bytes
}

/**
 * Agrees on permessage-deflate.
 * @param maxPayload what a message may inflate to, in bytes
 * @param offers the client's Sec-WebSocket-Extensions
 * @returns what compresses, and the header of the answer; undefined where no offer can be accepted
 */
export function agreeOnDeflate (maxPayload: number, offers: string): { deflate: Deflate, header: string } | undefined {
  try {
    const offered = extension.parse(offers)[DEFLATE_NAME]
    if (offered === undefined) return
    const deflate = new PerMessageDeflate({ isServer: true, maxPayload })
    deflate.accept(offered)
    return { deflate, header: extension.format({ [DEFLATE_NAME]: [deflate.params] }) }
  } catch {
    // None of the offers can be accepted: the messages stay as they are.
  }
}

/** `handleUpgrade` of ws calls this, beside the callback that it is given. */
interface Upgrading extends WebSocketServer {
  completeUpgrade: (...args: unknown[]) => void
}

/**
 * Lets `server` open a WebSocket. The app's own functions may take their time (`verifyClient` with two parameters), and may throw. What
 * they throw at once is thrown here. What they throw later would end the process, and goes to `onFault`.
 * @param lines headers for the 101
 */
export function openWebSocket (
  server: WebSocketServer, request: Parameters<WebSocketServer['handleUpgrade']>[0], socket: Duplex, lines: readonly string[],
  onOpen: (webSocket: WebSocket) => void, onFault: (error: unknown) => void
): void {
  let isLater = false
  // The server as this one request sees it: a listener for each request would stay as long as the app takes.
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

/** Whether the installed ws is as this file expects it. */
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
