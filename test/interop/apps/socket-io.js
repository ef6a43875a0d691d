import Fastify from 'fastify'
import { Server } from 'socket.io'
import spanzaRelay from 'fastify-spanza-relay'

const app = Fastify()
const isFirst = process.env.ORDER === 'before'
// What Engine.IO does to upgrades that are not its own: it destroys them after a while.
const addSocketIo = () => new Server(app.server, { destroyUpgradeTimeout: 100 })
let io = isFirst ? addSocketIo() : undefined
await app.register(spanzaRelay, { path: '/relay/:network', open: true })
io ??= addSocketIo()
io.on('connection', (socket) => socket.on('echo', (text, answer) => answer(text)))
app.get('/rest', async () => 'rest')
app.addHook('preClose', () => io.local.disconnectSockets(true))
process.once('SIGTERM', () => app.close())
await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`listening ${app.server.address().port}`)
