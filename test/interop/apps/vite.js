import middie from '@fastify/middie'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'
import { createServer } from 'vite'

const app = Fastify()
const isFirst = process.env.ORDER === 'before'
const createVite = async () => await createServer({
  configFile: false, root: import.meta.dirname, appType: 'custom', logLevel: 'error', server: { middlewareMode: true, hmr: { server: app.server } }
})
let vite = isFirst ? await createVite() : undefined
await app.register(spanzaRelay, { path: '/relay/:network', open: true })
vite ??= await createVite()
await app.register(middie)
app.use(vite.middlewares)
app.get('/rest', async () => 'rest')
app.addHook('preClose', async () => await vite.close())
process.once('SIGTERM', () => app.close())
await app.listen({ port: 0, host: '127.0.0.1' })
console.log(`token ${vite.config.webSocketToken}`)
console.log(`listening ${app.server.address().port}`)
