import type { FastifyInstance } from 'fastify'
import { errors } from '../errors.ts'
import type { PeerSelector } from '../hub/hub-info.ts'
import type { RelayHub } from '../server/relay-hub.ts'
import type { EventBroadcast } from './event-broadcast.ts'
import { checkSameOrigin } from './same-origin.ts'
import { schemas } from './schemas.ts'
import { Turns } from './turns.ts'
import { selectChannels, selectPeers, viewChannel, viewPeer, type PageQuery, type PeerQuery } from './views.ts'

/** Defines the JSON routes. */
export function defineRoutes (fastify: FastifyInstance, hub: RelayHub, broadcast: EventBroadcast): void {
  acceptJsonOnly(fastify)
  fastify.addHook('onRequest', async (_request, reply) => {
    reply.headers({
      'Cache-Control': 'no-store',
      'X-Content-Type-Options': 'nosniff',
      'Cross-Origin-Resource-Policy': 'same-origin'
    })
  })

  const turns = new Turns()
  fastify.addHook('preHandler', async (_request, reply) => await turns.take(reply))

  fastify.get('/stats', { schema: schemas.stats }, async () => ({ time: Date.now(), ...hub.stats() }))

  fastify.get<{ Querystring: PageQuery & { search?: string, busiest: number } }>('/channels', { schema: schemas.channels }, async ({ query }) => {
    const { search, offset, limit, busiest } = query
    const channels = selectChannels(hub.peers(), search)
    return {
      time: Date.now(),
      total: channels.length,
      channels: channels.slice(offset, offset + limit).map((members) => viewChannel(members, busiest))
    }
  })

  fastify.get<{ Querystring: PageQuery & PeerQuery }>('/peers', { schema: schemas.peers }, async ({ query }) => {
    const { offset, limit } = query
    const peers = selectPeers(hub.peers(), query)
    return { time: Date.now(), total: peers.length, peers: peers.slice(offset, offset + limit).map(viewPeer) }
  })

  fastify.get<{ Querystring: PeerSelector }>('/peer', { schema: schemas.peer }, async ({ query }) => {
    const peers = selectPeers(hub.peers(), query)
    if (peers.length === 0) throw new errors.FST_RELAY_ADMIN_PEER()
    return { time: Date.now(), peers: peers.map(viewPeer) }
  })

  fastify.post<{ Body: PeerSelector & { text?: string } }>('/disconnect', { schema: schemas.disconnect, onRequest: checkSameOrigin }, async ({ body }) => {
    const { text, ...selector } = body
    let closed = 0
    for (const { id, channel: { name, scope, kind } } of selectPeers(hub.peers(), selector)) {
      closed += hub.disconnect({ id, channel: name, scope, kind }, text)
    }
    return { closed }
  })

  fastify.get('/history', { schema: schemas.history }, async () => ({ time: Date.now(), ...broadcast.history }))

  // Without a route for HEAD: that would wait for the end of a stream that has none.
  fastify.get('/events', { schema: schemas.events, exposeHeadRoute: false }, async (_request, reply) => {
    return reply
      .type('application/x-ndjson')
      // nginx gathers what it passes on unless told otherwise.
      .header('X-Accel-Buffering', 'no')
      .send(broadcast.read(reply.raw))
  })
}

/** Refuses what a form of another site could send, whatever the app itself understands. */
function acceptJsonOnly (fastify: FastifyInstance): void {
  fastify.removeAllContentTypeParsers()
  fastify.addContentTypeParser('application/json', { parseAs: 'string' }, fastify.getDefaultJsonParser('error', 'error'))
}
