// A relay with a UDP echo as its target, as a process of its own. Its arguments: the port, and when to listen
// there, in milliseconds since 1970; at once without it. Prints each handshake's time, for whoever counts them.

import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'

const echo = createSocket('udp4')
echo.on('message', (datagram, { port, address }) => echo.send(datagram, port, address))
echo.bind(0, '127.0.0.1')
await once(echo, 'listening')

const app = Fastify()
// The tunnels of a test may all come from one address.
await app.register(spanzaRelay, { clientHandshakesPerSecond: 10_000 })
app.addHook('onRequest', async () => console.log(`handshake ${Date.now()}`))
app.relay('/echo', { target: `udp://127.0.0.1:${echo.address().port}`, open: true })
process.once('SIGTERM', async () => {
  await app.close()
  process.exit()
})
await app.ready()
await new Promise((resolve) => setTimeout(resolve, Number(process.argv[3] ?? 0) - Date.now()))
await app.listen({ port: Number(process.argv[2]), host: '0.0.0.0' })
console.log(`listening ${Date.now()}`)
