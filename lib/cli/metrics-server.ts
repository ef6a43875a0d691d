import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { formatHostPort, type HostPort } from '../util/host-port.ts'
import { CONTENT_TYPE } from './sidecar-metrics.ts'

const PATH = '/metrics'

export interface MetricsServer {
  url: string
  close: () => Promise<void>
}

/**
 * Answers scrapes of `/metrics`, over HTTP/1.1.
 * @param read returns the metrics
 * @throws the system's error when the port cannot be bound
 */
export async function serveMetrics ({ host, port }: HostPort, read: () => string): Promise<MetricsServer> {
  const server = createServer((request, response) => answer(request, response, read))
  server.listen({ host, port, exclusive: true })
  await once(server, 'listening')
  // A connection that cannot be accepted must not end the tunnel.
  server.on('error', () => {})
  return {
    url: `http://${formatHostPort({ host, port: (server.address() as AddressInfo).port })}${PATH}`,
    close: async () => {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    }
  }
}

function answer ({ method, url }: IncomingMessage, response: ServerResponse, read: () => string): void {
  if (url!.split('?', 1)[0] !== PATH) return respond(response, 404, `only ${PATH} is here\n`)
  if (method !== 'GET' && method !== 'HEAD') {
    response.setHeader('Allow', 'GET, HEAD')
    return respond(response, 405, 'only GET and HEAD\n')
  }
  respond(response, 200, read(), CONTENT_TYPE)
}

function respond (response: ServerResponse, statusCode: number, text: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(statusCode, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(text) })
  response.end(text)
}
