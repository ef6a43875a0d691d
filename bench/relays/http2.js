import { createSecureServer, createServer } from 'node:http2'
import { ready, tls } from './serve.js'

// The same over HTTP/2: extended CONNECT, and `stream.pipe` between the two that ask for the same path.

const WINDOW = 16 * 1024 * 1024

const waiting = new Map()
const settings = { enableConnectProtocol: true, initialWindowSize: WINDOW }
const server = tls ? createSecureServer({ ...tls, settings }) : createServer({ settings })

server.on('session', (session) => session.setLocalWindowSize(WINDOW))
server.on('stream', (stream, headers) => {
  stream.on('error', () => stream.destroy())
  stream.respond({ ':status': 200 })
  const path = headers[':path']
  const other = waiting.get(path)
  if (other === undefined) return waiting.set(path, stream)
  waiting.delete(path)
  stream.pipe(other)
  other.pipe(stream)
})

server.listen(0, '127.0.0.1', () => ready(server))
