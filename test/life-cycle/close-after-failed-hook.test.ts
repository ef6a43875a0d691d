import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { openTunnel, until } from '../helpers/tunnel.ts'

// A preClose hook that fails makes Fastify skip those behind it, and go on closing its server, which waits for every
// connection: the plugin must not need its own hook to run.

t.setTimeout(20_000)

for (const order of ['before', 'after']) {
  t.test(`a preClose hook of the app, added ${order} the plugin, that throws keeps no tunnel open`, async (t) => {
    const app = Fastify() as FastifyInstance
    const fail = async (): Promise<never> => { throw new Error('thrown by the app') }
    if (order === 'before') app.addHook('preClose', fail)
    await app.register(spanzaRelay, { path: '/relay/:network', closeGrace: 500 })
    if (order === 'after') app.addHook('preClose', fail)
    await app.listen({ port: 0, host: '127.0.0.1' })
    const tunnel = await openTunnel(t, app)
    const closed = app.close().catch((error: Error) => error)
    await tunnel.closed
    t.match(tunnel.closing, { code: 7 })
    t.match(await closed, { message: 'thrown by the app' }, 'the app hears of it as it does without the plugin')
    t.match(app.relayHub.stats(), { peers: 0, detached: { shutdown: 1 } })
    await until(() => !Object.hasOwn(app.server, 'emit'))
  })
}
