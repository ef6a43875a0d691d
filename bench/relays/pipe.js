import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { ready, tls } from './serve.js'

// What anybody would write first: a 101, and `socket.pipe` between the two that ask for the same path.

const waiting = new Map()
const server = tls ? createTlsServer(tls) : createServer()

server.on('upgrade', (request, socket) => {
  socket.on('error', () => socket.destroy())
  socket.setNoDelay(true)
  socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n\r\n')
  const other = waiting.get(request.url)
  if (other === undefined) return waiting.set(request.url, socket)
  waiting.delete(request.url)
  socket.pipe(other)
  other.pipe(socket)
})

server.listen(0, '127.0.0.1', () => ready(server))
