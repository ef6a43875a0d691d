import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { WebSocketServer, type WebSocket } from 'ws'
import { agreeOnDeflate, MESSAGE_PIECES, webSocketOn, type Deflate, type WebSocketClass } from '../../internals/ws-internals.ts'
import type { HttpVersion } from '../../util/http-version.ts'
import type { Tunnel } from '../../tunnel/tunnel.ts'

/** Opens WebSockets (RFC 6455) with ws, which reads the incoming frames. */

/** A WebSocket and its stream. */
export interface OpenWebSocket {
  webSocket: WebSocket
  stream: Duplex
  /** The same stream, for data that the relay writes without ws. */
  tunnel: Tunnel
}

/** How to open a WebSocket. */
export interface WebSocketSettings {
  /** Opens WebSockets over HTTP/1.1. Over HTTP/2, only its options apply. */
  server: WebSocketServer
  /** The chosen subprotocol. */
  protocol: string | undefined
  /** The largest size of a decompressed message, in bytes. A lower limit of the server still applies. */
  maxInflated: number
  /** Further headers of the answer. */
  answerHeaders: Record<string, string>
}

/** The options in which the relay's own servers differ. */
export interface OwnServerOptions {
  /** The largest message, in bytes. */
  maxPayload: number
  /** Whether to accept permessage-deflate (RFC 7692). */
  perMessageDeflate: boolean
  /** How long to wait for the peer's Close frame, in milliseconds. */
  closeTimeout: number
}

/** The WebSocket servers of one Fastify server: the one of @fastify/websocket, if registered, and the relay's own. */
export class WebSocketServers {
  readonly #own = new Map<string, WebSocketServer>()

  /**
   * Looks up the server for a handshake. Call it for each one, because the app may register @fastify/websocket after the relay.
   * @fastify/websocket does not support HTTP/2.
   * @param scope the Fastify instance of the route
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

/** The options of a server, with ws's defaults, as ws stores them. They can be read only from `server.options`. */
interface ServerOptions extends OwnServerOptions {
  WebSocket: WebSocketClass
}

/** Creates a server-side WebSocket on an HTTP/2 stream whose handshake is complete (RFC 8441, section 5). */
export function webSocketOnHttp2 (stream: Duplex, { server, protocol }: WebSocketSettings, deflate: Deflate | undefined): WebSocket {
  const options = server.options as object as ServerOptions
  return webSocketOn(stream, options.WebSocket, options, { isServer: true, protocol, deflate })
}

/** Negotiates permessage-deflate, if the server's options enable it. */
export function agreeOnServersDeflate ({ server }: WebSocketSettings, headers: IncomingHttpHeaders): ReturnType<typeof agreeOnDeflate> {
  const { perMessageDeflate, maxPayload } = server.options as object as ServerOptions
  const offers = headers['sec-websocket-extensions']
  return perMessageDeflate && offers !== undefined ? agreeOnDeflate(maxPayload, offers) : undefined
}
