import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import type { DetachInfo, HubOptions, PeerInfo } from '../../lib/index.ts'
import { roomy } from '../helpers/handshake-table.ts'
import { startApp } from '../helpers/relay-app.ts'
import { detached } from '../helpers/relay.ts'

export interface ServerOptions {
  /** For Fastify; default: HTTP/2 without TLS. */
  server?: FastifyServerOptions & { http2?: boolean, https?: object, http2SessionTimeout?: number }
  relay?: HubOptions
  /** Called before the routes are defined. */
  setUp?: (app: FastifyInstance) => unknown
}

/**
 * One relay server for many cases. The last part of a relay's path names the channel; clients say themselves who they
 * are, as `x-id`. A REST API lives beside, on the same paths, too.
 */
export async function startServer (t: Test, { server = { http2: true }, relay, setUp }: ServerOptions = {}): Promise<FastifyInstance> {
  return await startApp(t, async (app) => {
    await setUp?.(app)
    const identify = ({ headers }: { headers: Record<string, unknown> }): { id: string } => ({ id: headers['x-id'] as string })
    app.relay('/relay/:channel', { scope: 'relay', identify, plain: async () => 'a plain answer' })
    app.post('/relay/:channel', async ({ body }) => ({ body }))
    app.relay('/deflate/:channel', { scope: 'relay', identify, perMessageDeflate: true })
    app.relay('/raw-only/:channel', { scope: 'relay', identify, framings: ['raw'] })
    app.relay('/datagrams-only/:channel', { scope: 'relay', identify, framings: ['wg'] })
    app.relay('/spanza-only', { protocols: ['spanza'] })
    app.relay('/hosts', { hosts: ['relay.example'] })
    app.relay('/origins', { origins: ['https://app.example'] })
    app.relay('/empty-403', { onRequest: async (_request, reply) => await reply.code(403).send() })
    app.relay('/body-401', {
      onRequest: async (_request, reply) => await reply.code(401).header('www-authenticate', 'Bearer').send({ error: 'who are you?' })
    })
    app.relay('/hook-headers/:channel', {
      onRequest: async ({ method, ip, url }, reply) => {
        reply.headers({ 'x-seen': `${method} ${url} of ${ip}`, 'X-Upper': 'one', 'content-length': '5', 'Keep-Alive': 'timeout=5', 'sec-websocket-protocol': 'wrong', 'spanza-framing': 'wrong' })
        reply.header('set-cookie', ['a=1', 'b=2'])
      }
    })
    app.get('/alive', async () => 'alive')
  }, { server: server as FastifyServerOptions, relay: { ...roomy, maxPacketSize: 65535, ...relay } })
}

let channels = 0

/** A channel that nobody else has. */
export function newChannel (): string {
  return `channel-${++channels}`
}

/** How the only peer of a test leaves; to be called before it does. */
export async function left (app: FastifyInstance, id: string): Promise<Pick<DetachInfo, 'reason' | 'text'>> {
  const { reason, text } = await detached(app, id)
  return { reason, text }
}

/** The attached peer with this id. */
export function peerOf (app: FastifyInstance, id: string): PeerInfo | undefined {
  return app.relayHub.peers().find((peer) => peer.id === id)
}
