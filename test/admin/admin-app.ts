import basicAuth from '@fastify/basic-auth'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import relayAdmin from '../../lib/admin/index.ts'
import type { HubOptions } from '../../lib/index.ts'
import { startApp } from '../helpers/relay-app.ts'

export const authorization = `Basic ${btoa('admin:secret')}`

/**
 * A relay with an admin scope at `/relay-admin` behind basic auth; its clients say themselves who they are (see `openTunnel`),
 * and the last part of the path names the channel.
 */
export async function startAdmin (t: Test, { relay = {}, server = {}, before = () => {} }: { relay?: HubOptions, server?: object, before?: (app: FastifyInstance) => unknown } = {}): Promise<FastifyInstance> {
  return await startApp(t, async (app) => {
    await before(app)
    await app.register(basicAuth, {
      authenticate: { realm: 'relay' },
      validate: async (username, password) => {
        if (username !== 'admin' || password !== 'secret') throw new Error('who is there?')
      }
    })
    app.relay('/relay/:network', {
      onRequest: async ({ headers }) => {
        if (headers['x-id'] === 'stranger') throw Object.assign(new Error('no'), { statusCode: 401 })
      },
      identify: ({ headers }) => ({ id: headers['x-id'] as string | undefined, context: { secret: 'of the app' } })
    })
    await app.register(relayAdmin, { prefix: '/relay-admin', onRequest: app.basicAuth })
  }, { server, relay: { clientHandshakesPerSecond: 10_000, channelHandshakesPerSecond: 10_000, handshakesPerSecond: 10_000, ...relay } })
}

/** What a route answers to the operator. */
export async function get (app: FastifyInstance, path: string): Promise<{ statusCode: number, json: any }> {
  const answer = await app.inject({ url: `/relay-admin/${path}`, headers: { authorization } })
  return { statusCode: answer.statusCode, json: answer.json() }
}
