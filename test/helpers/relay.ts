import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import type { DetachInfo, HubOptions, PeerInfo } from '../../lib/index.ts'
import { startApp } from './relay-app.ts'

/**
 * A relay on 127.0.0.1 until the test ends. Its clients say themselves who they are (see `openTunnel`); the last part
 * of the path names the channel, and `/relay/…` and `/other/…` are two scopes.
 */
export async function startRelay (t: Test, options: HubOptions = {}): Promise<FastifyInstance> {
  return await startApp(t, (app) => {
    for (const path of ['/relay/:network', '/other/:network']) {
      app.relay(path, {
        identify: ({ headers }) => ({
          id: headers['x-id'] as string | undefined,
          publicKey: headers['x-key'] as string | undefined,
          context: headers['x-context']
        })
      })
    }
  }, { relay: { clientHandshakesPerSecond: 10_000, channelHandshakesPerSecond: 10_000, handshakesPerSecond: 10_000, ...options } })
}

/** Waits for the peer with this id to leave, and tells how it did. */
export async function detached (app: FastifyInstance, id: string): Promise<DetachInfo> {
  return await new Promise((resolve) => {
    function listener (peer: PeerInfo, info: DetachInfo): void {
      if (peer.id !== id) return
      app.relayHub.off('detach', listener)
      resolve(info)
    }
    app.relayHub.on('detach', listener)
  })
}
