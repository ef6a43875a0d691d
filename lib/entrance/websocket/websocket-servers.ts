import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { WebSocketServer, type WebSocket } from 'ws'
import { agreeOnDeflate, MESSAGE_PIECES, webSocketOn, type Deflate, type WebSocketClass } from '../../internals/ws-internals.ts'
import type { HttpVersion } from '../../util/http-version.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'

/** Opens WebSockets (RFC 6455) with ws, which reads what comes in. */

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
      server = new WebSocketServer({ noServer: true, clientTracking: false, ...MESSAGE_PIECES, ...options })
      this.#own.set(key, server)
    }
    return server
  }
}

/** Where ws keeps the options it was given, with its defaults; they can only be read from there. */
interface ServerOptions extends OwnServerOptions {
  WebSocket: WebSocketClass
}

/** Makes a server's WebSocket of a stream of HTTP/2, whose handshake is done (RFC 8441, section 5). */
export function webSocketOnHttp2 (stream: Duplex, { server, protocol }: WebSocketSettings, deflate: Deflate | undefined): WebSocket {
  const options = server.options as object as ServerOptions
  return webSocketOn(stream, options.WebSocket, options, { isServer: true, protocol, deflate })
}

/** Agrees on permessage-deflate where the server wants it. */
export function agreeOnServersDeflate ({ server }: WebSocketSettings, headers: IncomingHttpHeaders): ReturnType<typeof agreeOnDeflate> {
  const { perMessageDeflate, maxPayload } = server.options as object as ServerOptions
  const offers = headers['sec-websocket-extensions']
  return perMessageDeflate && offers !== undefined ? agreeOnDeflate(maxPayload, offers) : undefined
}
