import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'
import { MessageRouter } from './message-router.js'
import { ready, settings } from './serve.js'

// Plain ws, with `corked: true` as an author who has measured would use it.

const router = new MessageRouter(settings.corked)
const server = createServer()

new WebSocketServer({ server }).on('connection', (socket, request) => {
  const [, , channel, number] = request.url.split('/')
  router.attach(channel, Number(number), socket)
})

server.listen(0, '127.0.0.1', () => ready(server))
