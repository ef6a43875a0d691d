import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'

/**
 * For Node before 22.21 and 24.9, which has no `shouldUpgradeCallback`. With one `upgrade` listener, every request with an
 * Upgrade header becomes an upgrade, and a POST that merely offers HTTP/2 loses its body. This module makes each
 * connection's parser ignore the Upgrade header of unclaimed requests.
 *
 * `socket.parser.onIncoming` is not a public API. It is the same in all of Node 20. If it is missing, nothing changes, and
 * `serveWithoutUpgrade` answers such requests.
 */

type OnIncoming = (request: IncomingMessage & { upgrade?: boolean }, shouldKeepAlive: boolean) => unknown

interface ParsedSocket extends Socket {
  parser?: { onIncoming?: OnIncoming | null } | null
}

/**
 * @param shouldUpgrade called for each request with an Upgrade header; true if it becomes an upgrade
 * @returns a function that stops watching new connections
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
  // On a TLS server, `connection` passes the encrypted socket, which has no parser.
  server.on('connection', watch)
  server.on('secureConnection', watch)
  return () => {
    server.off('connection', watch)
    server.off('secureConnection', watch)
  }
}
