import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import { authenticate } from './hook.js'
import { MessageRouter } from './message-router.js'
import { ready } from './serve.js'

const router = new MessageRouter(false)

const app = Fastify()
await app.register(websocket)
app.get('/relay/:channel/:number', { websocket: true, onRequest: authenticate }, (socket, { params }) => {
  router.attach(params.channel, Number(params.number), socket)
})
await app.listen({ port: 0, host: '127.0.0.1' })
ready(app.server)
