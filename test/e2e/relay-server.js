// A Fastify app with a relay route and an ordinary one, for tests that need the relay as a process of its own. Plain
// JavaScript over the built package, as a user would run it. Its one argument is a JSON file:
// { port, https?: { key, cert }, devices: { [bearer token]: what identify() returns } }

import { readFileSync } from 'node:fs'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'

const { port, https, devices } = JSON.parse(readFileSync(process.argv[2], 'utf8'))

const app = Fastify({ logger: { stream: process.stderr }, ...(https && { https }) })

await app.register(spanzaRelay)

app.decorateRequest('device', null)

app.relay('/relay', {
  async onRequest (request) {
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    if (token === undefined || !Object.hasOwn(devices, token)) {
      throw Object.assign(new Error('No such device'), { statusCode: 401 })
    }
    request.device = devices[token]
  },
  identify: async (request) => request.device
})

app.get('/stats', async () => ({ stats: app.relayHub.stats(), peers: app.relayHub.peers() }))

process.once('SIGTERM', () => app.close())

await app.listen({ port, host: '0.0.0.0' })
console.log('listening')
