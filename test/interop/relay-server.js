// The relay of these tests, as a process of its own over the built package. Its one argument is a JSON file:
// { port, host?, https?: { key, cert }, options?, routes: [{ path, token?, …the route's options }] }, where `options` are the
// plugin's.

import { readFileSync } from 'node:fs'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'

const { port, host = '127.0.0.1', https, options, routes } = JSON.parse(readFileSync(process.argv[2], 'utf8'))

const app = Fastify({ logger: { stream: process.stderr }, ...(https && { https }) })

await app.register(spanzaRelay, options)

for (const { path, token, ...routeOptions } of routes) {
  app.relay(path, {
    ...routeOptions,
    async onRequest (request) {
      if (token !== undefined && request.headers.authorization !== `Bearer ${token}`) {
        throw Object.assign(new Error('No such token'), { statusCode: 401 })
      }
    }
  })
}

app.get('/stats', async () => ({ stats: app.relayHub.stats(), peers: app.relayHub.peers() }))

process.once('SIGTERM', () => app.close())

await app.listen({ port, host })
console.log('listening')
