import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import * as ws from 'ws'
import { WebSocketServer, type WebSocket } from 'ws'
import type { HttpVersion } from '../../util/http-version.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'

/** Opens WebSockets (RFC 6455) with ws, which reads what comes in. */

/** What @types/ws has not. */
interface Deflate {
  /** Above this, inflating stops, and the WebSocket closes with 1009; 0: never. */
  _maxPayload: number
  params: object
  accept: (offers: object[]) => void
}

const { extension, PerMessageDeflate } = ws as unknown as {
  extension: { parse: (header: string) => Record<string, object[]>, format: (extensions: Record<string, object[]>) => string }
  PerMessageDeflate: { new (options: object): Deflate, extensionName: string }
}

/** A WebSocket, and what it speaks on. */
export interface OpenWebSocket {
  webSocket: WebSocket
  stream: Duplex
  /** The same stream, for what the relay writes beside ws. */
  tunnel: Tunnel
}

/** How to open one. */
export interface WebSocketSettings {
  /** Opens those of HTTP/1.1; over HTTP/2, its options hold. */
  server: WebSocketServer
  /** The subprotocol that was chosen. */
  protocol: string | undefined
  /** What a compressed message may grow to, in bytes, whatever the server's own limit is. */
  maxInflated: number
  /** What the answer says beside that. */
  answerHeaders: Record<string, string>
}

/** What our own servers differ by. */
export interface OwnServerOptions {
  /** The largest message, in bytes. */
  maxPayload: number
  /** Whether to agree on permessage-deflate (RFC 7692). */
  perMessageDeflate: boolean
  /** How long the other side's Close frame is waited for, in milliseconds. */
  closeTimeout: number
}

/** What a message may consist of: a piece of memory is held for each. */
const PIECES = { maxBufferedChunks: 4096, maxFragments: 1024 }

/** The WebSocket servers of one Fastify server: that of @fastify/websocket where the app has registered it, and our own. */
export class WebSocketServers {
  readonly #own = new Map<string, WebSocketServer>()

  /**
   * Asked for each handshake: the app may register @fastify/websocket after us. It does not speak HTTP/2.
   * @param scope that of the route
   */
  serverFor (scope: FastifyInstance, httpVersion: HttpVersion, options: OwnServerOptions): WebSocketServer {
    const { websocketServer } = scope as { websocketServer?: WebSocketServer }
    return (httpVersion === '1.1' ? websocketServer : undefined) ?? this.#ownFor(options)
  }

  #ownFor (options: OwnServerOptions): WebSocketServer {
    const key = JSON.stringify(options)
    let server = this.#own.get(key)
    if (server === undefined) {
      server = new WebSocketServer({ noServer: true, clientTracking: false, ...PIECES, ...options })
      this.#own.set(key, server)
    }
    return server
  }
}

/** Where ws keeps the options it was given, with its defaults; they can only be read from there. */
interface ServerOptions extends OwnServerOptions {
  WebSocket: new (address: null, protocols: undefined, options: object) => WebSocket
}

/** How ws makes a WebSocket of a stream whose handshake somebody else has made: its documentation has nothing about it. */
interface Internals {
  _protocol: string
  _extensions: Record<string, Deflate>
  setSocket: (stream: Duplex, head: Buffer, options: object) => void
}

/** What `handleUpgrade` calls, beside the callback that it is given. */
interface Upgrading extends WebSocketServer {
  completeUpgrade: (...args: unknown[]) => void
}

/**
 * Lets `server` open a WebSocket. What the app has given it may take its time (`verifyClient` with two parameters), and may throw: at once,
 * which is thrown here, or later, which would end the process.
 * @param lines headers for the 101
 * @param onFault called with what was thrown later
 */
export function openWebSocket (
  server: WebSocketServer, request: IncomingMessage, socket: Duplex, lines: readonly string[],
  onOpen: (webSocket: WebSocket) => void, onFault: (error: unknown) => void
): void {
  let isLater = false
  // The server, as this one request sees it: a listener for each would stay as long as the app takes its time.
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
  own.handleUpgrade(request, socket, NOTHING, onOpen)
  isLater = true
}

/** Limits what compressed messages of a WebSocket may grow to, where it has agreed on permessage-deflate. */
export function limitInflated (webSocket: WebSocket, bytes: number): void {
  const deflate = (webSocket as unknown as Internals)._extensions[PerMessageDeflate.extensionName]
  if (deflate !== undefined && !(deflate._maxPayload > 0 && deflate._maxPayload < bytes)) deflate._maxPayload = bytes
}

/** Makes a server's WebSocket of a stream of HTTP/2, whose handshake is done (RFC 8441, section 5). */
export function webSocketOn (stream: Duplex, { server, protocol }: WebSocketSettings, deflate: Deflate | undefined): WebSocket {
  const options = server.options as object as ServerOptions
  const webSocket = new options.WebSocket(null, undefined, options)
  const internals = webSocket as unknown as Internals
  if (protocol !== undefined) internals._protocol = protocol
  if (deflate !== undefined) internals._extensions = { [PerMessageDeflate.extensionName]: deflate }
  internals.setSocket(stream, NOTHING, options)
  return webSocket
}

const NOTHING = Buffer.alloc(0)

/**
 * Agrees on permessage-deflate.
 * @returns what compresses, and the header that says so; undefined where the server does not want it or the client does not offer it
 */
export function agreeOnDeflate ({ server }: WebSocketSettings, headers: IncomingHttpHeaders): { deflate: Deflate, header: string } | undefined {
  const { perMessageDeflate, maxPayload } = server.options as object as ServerOptions
  const offers = headers['sec-websocket-extensions']
  if (!perMessageDeflate || offers === undefined) return
  try {
    const offered = extension.parse(offers)[PerMessageDeflate.extensionName]
    if (offered === undefined) return
    const deflate = new PerMessageDeflate({ isServer: true, maxPayload })
    deflate.accept(offered)
    return { deflate, header: extension.format({ [PerMessageDeflate.extensionName]: [deflate.params] }) }
  } catch {
    // Not one that can be accepted: the messages stay as they are.
  }
}
