import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'

/**
 * For Node before 22.21 and 24.9, which cannot be asked whether a request shall become an upgrade: with one listener
 * for `upgrade`, every request that carries the header becomes one, and a POST that merely offers HTTP/2 loses its
 * body. Here each connection's parser is made to forget the header of a request that nobody wants.
 *
 * `socket.parser.onIncoming` is no public API. It is the same in all of Node 20; where it is not found, nothing is
 * changed, and such a request gets the answer of `serveWithoutUpgrade`.
 */

type OnIncoming = (request: IncomingMessage & { upgrade?: boolean }, shouldKeepAlive: boolean) => unknown

interface ParsedSocket extends Socket {
  parser?: { onIncoming?: OnIncoming | null } | null
}

/**
 * @param shouldUpgrade tells for each request with an Upgrade header whether it becomes an upgrade
 * @returns stops watching new connections
 */
export function watchParsers (server: Server, shouldUpgrade: (request: IncomingMessage) => boolean): () => void {
  const watch = (socket: ParsedSocket): void => {
    const parser = socket.parser
    const onIncoming = parser?.onIncoming
    if (parser == null || typeof onIncoming !== 'function') return
    parser.onIncoming = (request, shouldKeepAlive) => {
      if (request.upgrade === true && request.method !== 'CONNECT' && !shouldUpgrade(request)) request.upgrade = false
      return onIncoming(request, shouldKeepAlive)
    }
  }
  // On a TLS server `connection` brings the encrypted socket, which has no parser.
  server.on('connection', watch)
  server.on('secureConnection', watch)
  return () => {
    server.off('connection', watch)
    server.off('secureConnection', watch)
  }
}
