import { createHash } from 'node:crypto'
import Fastify from 'fastify'
import spanzaRelay from 'fastify-spanza-relay'
import { authenticate } from './hook.js'
import { ready, settings, tls } from './serve.js'

// The relay under test, as an app has it, but for limits that a bench would run into.

const many = 1e9

const app = Fastify({ http2: settings.http2 === true, ...(tls && { https: tls }) })
await app.register(spanzaRelay, {
  maxPeers: many,
  maxChannelPeers: many,
  maxKeylessPeers: many,
  maxClientPeers: many,
  maxUnfinishedHandshakes: many,
  maxClientUnfinishedHandshakes: many,
  handshakesPerSecond: many,
  channelHandshakesPerSecond: many,
  clientHandshakesPerSecond: many,
  keepaliveTimeout: 600_000,
  ...settings.options
})
app.relay('/relay/:channel', {
  onRequest: authenticate,
  identify: ({ headers, params }) => ({ channel: params.channel, publicKey: publicKeyOf(headers['x-peer']) })
})
await app.listen({ port: 0, host: settings.host ?? '127.0.0.1' })
ready(app.server, { datagrams: () => app.relayHub.stats().datagramsOut })

/** As good as any for those who only compare it. */
function publicKeyOf (peer) {
  if (peer !== undefined) return createHash('sha256').update(peer).digest()
}
