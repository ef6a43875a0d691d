import { createHash } from 'node:crypto'
import Fastify from 'fastify'
import bearerAuth from '@fastify/bearer-auth'
import websocket from '@fastify/websocket'
import spanzaRelay from 'fastify-spanza-relay'

/**
 * An app as one might have it already: REST, a WebSocket route, bearer tokens. The relay route stands beside them
 * and is guarded by the same hook.
 *
 * @param {Array<{ token: string, id: string, networks: string[], publicKey?: string }>} devices who may connect
 * @param {import('fastify').FastifyServerOptions} options given to Fastify
 */
export async function buildApp (devices, options = {}) {
  const app = Fastify(options)

  // Looked up by hash, so that the time a look-up takes tells nothing about the tokens.
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
  await app.register(websocket)
  await app.register(spanzaRelay, { maxChannelPeers: 64 })

  app.get('/api/health', async () => ({ ok: true }))

  app.get('/api/peers', { onRequest: app.verifyBearerAuth }, async (request) =>
    app.relayHub.peers()
      .filter(({ channel }) => request.device.networks.includes(channel.name))
      .map(({ id, channel, framing, attachedAt, bytesIn, bytesOut }) =>
        ({ id, network: channel.name, framing, attachedAt, bytesIn, bytesOut })))

  app.get('/echo', { websocket: true }, (socket) => {
    socket.on('message', (message) => socket.send(message))
  })

  app.relay('/relay/:network', {
    onRequest: app.verifyBearerAuth,
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

  return app
}

function hashOf (token) {
  return createHash('sha256').update(token).digest('hex')
}
