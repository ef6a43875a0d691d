import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import Fastify from 'fastify'
import basicAuth from '@fastify/basic-auth'
import bearerAuth from '@fastify/bearer-auth'
import websocket from '@fastify/websocket'
import { collectDefaultMetrics, Registry } from 'prom-client'
import spanzaRelay from 'fastify-spanza-relay'
import relayAdmin from 'fastify-spanza-relay/admin'
import { relayMetrics } from 'fastify-spanza-relay/metrics'

/** A peer in the browser, by path. */
const pageFiles = {
  '/': { file: 'index.html', type: 'text/html; charset=utf-8' },
  '/page.js': { file: 'page.js', type: 'text/javascript; charset=utf-8' },
  '/page.css': { file: 'page.css', type: 'text/css; charset=utf-8' }
}

const pageHeaders = {
  'cache-control': 'no-cache',
  // It may join a relay elsewhere, if that one lets pages from here in. Its forms are for its script only: a browser would put the token into a query.
  'content-security-policy': [
    "default-src 'none'", "script-src 'self'", "style-src 'self'", 'img-src data:', 'connect-src *',
    "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"
  ].join('; '),
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff'
}

/**
 * An app as one might have it already: REST, a WebSocket route, bearer tokens, metrics. The relay route stands beside them
 * and is guarded by the same hook.
 *
 * @param {object} secrets
 * @param {Array<{ token: string, id: string, networks: string[], publicKey?: string }>} secrets.devices who may connect
 * @param {string} secrets.adminPassword with it, the user `admin` sees what the relay does, and may disconnect peers
 * @param {import('fastify').FastifyServerOptions | import('fastify').FastifyHttp2SecureOptions<import('node:http2').Http2SecureServer>} options
 * given to Fastify: `{ http2: true, https: { key, cert, allowHTTP1: true } }` makes it speak HTTP/2, too
 */
export async function buildApp ({ devices, adminPassword }, { logger = false, ...options } = {}) {
  const app = Fastify({ ...options, logger: logger && withoutQueries(logger) })

  // Secrets are looked up and compared by hash, so that the time it takes tells nothing about them.
  const devicesByHash = new Map(devices.map((device) => [hashOf(device.token), device]))
  app.decorateRequest('device', null)
  await app.register(bearerAuth, {
    addHook: false,
    keys: new Set(),
    auth: (token, request) => {
      request.device = devicesByHash.get(hashOf(token)) ?? null
      return request.device !== null
    }
  })
  const adminHash = hashOf(adminPassword)
  await app.register(basicAuth, {
    authenticate: { realm: 'relay' },
    validate: async (username, password) => {
      if (username !== 'admin' || hashOf(password) !== adminHash) throw new Error('unknown user or wrong password')
    }
  })
  await app.register(websocket)
  await app.register(spanzaRelay, { maxChannelPeers: 64 })

  app.get('/api/health', async () => ({ ok: true }))

  // What a page cannot learn from a WebSocket that was refused: whether its token is good, and its origin the right one.
  app.get('/api/whoami', { onRequest: app.verifyBearerAuth }, async ({ device, protocol, host }) =>
    ({ id: device.id, networks: device.networks, origin: `${protocol}://${host}` }))

  app.get('/api/peers', { onRequest: app.verifyBearerAuth }, async (request) =>
    app.relayHub.peers()
      .filter(({ channel }) => request.device.networks.includes(channel.name))
      .map(({ id, channel, framing, attachedAt, bytesIn, bytesOut }) =>
        ({ id, network: channel.name, framing, attachedAt, bytesIn, bytesOut })))

  app.get('/echo', { websocket: true }, (socket) => {
    socket.on('message', (message) => socket.send(message))
  })

  app.relay('/relay/:network', {
    onRequest: [takeTokenFromQuery, app.verifyBearerAuth],
    identify: async (request) => {
      const { id, networks, publicKey } = request.device
      const { network } = request.params
      if (!networks.includes(network)) {
        throw Object.assign(new Error(`${id} is not in the network ${network}`), { statusCode: 403 })
      }
      // With the public keys known, a handshake reaches the one peer it is for.
      return { id, channel: network, publicKey }
    }
  })

  await app.register(relayAdmin, { prefix: '/relay-admin', onRequest: app.basicAuth })

  const register = new Registry()
  collectDefaultMetrics({ register })
  relayMetrics(app.relayHub, register)
  app.get('/metrics', { onRequest: app.basicAuth }, async (request, reply) =>
    reply.type(register.contentType).send(await register.metrics()))

  for (const [path, { file, type }] of Object.entries(pageFiles)) {
    const content = await readFile(new URL(`page/${file}`, import.meta.url))
    app.get(path, async (request, reply) => reply.headers(pageHeaders).type(type).send(content))
  }

  // Fastify's own one logs the whole URL.
  app.setNotFoundHandler(async (request, reply) => {
    reply.code(404)
    return { statusCode: 404, error: 'Not Found', message: `Route ${request.method}:${pathOf(request.url)} not found` }
  })

  return app
}

/** Browsers cannot give a WebSocket headers, so that the token may come as `?token=`. */
async function takeTokenFromQuery ({ query, raw: { headers } }) {
  if (query.token !== undefined) headers.authorization ??= `Bearer ${query.token}`
}

/** A query may hold a token, which is not to be in the log: Fastify writes URLs as part of `req`, @fastify/websocket as `path`. */
function withoutQueries (logger) {
  const req = ({ method, url, host, ip, socket }) =>
    ({ method, url: pathOf(url), host, remoteAddress: ip, remotePort: socket?.remotePort })
  return { ...logger, serializers: { ...logger.serializers, req, path: pathOf } }
}

function pathOf (url) {
  return url.replace(/[?#].*$/s, '')
}

function hashOf (token) {
  return createHash('sha256').update(token).digest('hex')
}
