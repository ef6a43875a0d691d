import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { RawSession, connectHeaders } from '../conformance/raw-http2.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { startListening } from '../helpers/relay-app.ts'

// Limits are tested by the address that `request.ip` will have, before any hook. Where a hook of the app decides what is to be believed, as
// behind a CDN that proves itself by a secret, a client could otherwise write the address whose limits it uses up.

const VICTIM = '203.0.113.7'

for (const http2 of [false, true]) {
  t.test(`what a hook does not believe uses up no limit of the address it names (HTTP/${http2 ? '2' : '1.1'})`, async (t) => {
    const app = Fastify({ trustProxy: (_address: string, hop: number) => hop < 1, ...(http2 ? { http2 } : {}) } as object) as FastifyInstance
    app.addHook('onRequest', async ({ raw: { headers } }) => {
      if (headers['x-cdn-secret'] !== 'secret') delete headers['x-forwarded-for']
    })
    await app.register(spanzaRelay, { clientHandshakesPerSecond: 1, maxClientUnfinishedHandshakes: 4 })
    app.relay('/relay/:id')
    app.get('/', async () => 'first')
    await startListening(t, app)
    await app.inject('/')

    const ask = async (localAddress: string, headers: Record<string, string>): Promise<number> => {
      if (http2) return await (await RawSession.open(t, app, { localAddress })).request(connectHeaders('/relay/x', 'spanza', { 'spanza-framing': 'wg', ...headers })).answer()
      const client = await RawClient.dial(t, app, { localAddress })
      await client.send(upgradeText('/relay/x', { headers: { 'spanza-framing': 'wg', ...headers } }))
      const { statusCode } = await client.head()
      client.socket.destroy()
      return statusCode
    }
    const opened = http2 ? 200 : 101
    const seen: number[] = []
    for (let i = 0; i < 12; i++) seen.push(await ask('127.0.0.2', { 'x-forwarded-for': VICTIM }))
    t.equal(seen.at(-1), 429, 'the attacker meets limits of its own')
    t.equal(await ask('127.0.0.1', { 'x-forwarded-for': VICTIM, 'x-cdn-secret': 'secret' }), opened, 'whom it names meets none')
    t.equal(await ask('127.0.0.2', { 'x-forwarded-for': '203.0.113.8' }), 429, 'and it has no other name')
  })
}
