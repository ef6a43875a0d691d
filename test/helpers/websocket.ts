import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { WebSocket, type ClientOptions } from 'ws'

/**
 * Opens a WebSocket as ws does it; it is cut at the end of the test.
 * @throws what the server answers instead
 */
export async function openWebSocket (t: Test, app: FastifyInstance, path: string, protocols: string[] = [], options: ClientOptions = {}): Promise<WebSocket> {
  const { port } = app.server.address() as AddressInfo
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocols, options)
  t.teardown(() => socket.terminate())
  await once(socket, 'open')
  // What breaks later is told by `close`.
  socket.on('error', () => {})
  return socket
}
