// The besieged relay, as a process of its own. Plain JavaScript over the built package.
// Its one argument names the front: see `fronts` in siege.ts.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import fastifyWebSocket from '@fastify/websocket'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'

const TOKEN = 'Bearer siege'
/** How long the app takes to look a token up. */
const LOOKUP_MS = 20
/** A hook that asks something far away. */
const SLOW_MS = 3000

const front = process.argv[2]
const read = (name) => readFileSync(new URL(`../fixtures/${name}`, import.meta.url))
const pair = { key: read('server-key.pem'), cert: read('server.pem') }

const settings = {
  'HTTP/1.1': {},
  'HTTP/1.1, TLS': { https: pair },
  'HTTP/2, TLS': { http2: true, https: { ...pair, allowHTTP1: true } }
}[front]

const app = Fastify({ logger: false, ...settings })
// As the documentation recommends the two together.
if (front === 'HTTP/1.1') await app.register(fastifyWebSocket)
await app.register(spanzaRelay)

async function authenticate ({ headers }) {
  await sleep(LOOKUP_MS)
  if (headers.authorization !== TOKEN) throw Object.assign(new Error('unknown token'), { statusCode: 401 })
}

app.relay('/relay/:channel', { onRequest: authenticate })
app.relay('/slow', {
  onRequest: async (request) => {
    await sleep(SLOW_MS)
    await authenticate(request)
  }
})
app.get('/slow-rest', async () => {
  await sleep(SLOW_MS)
  return { ok: true }
})

// Who has started it may have ended.
process.on('disconnect', () => process.exit())
process.on('message', async () => {
  await app.close()
  process.disconnect()
})

await app.listen({ port: 0, host: '127.0.0.1' })
process.send({ port: app.server.address().port })
