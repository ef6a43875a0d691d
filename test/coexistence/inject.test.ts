import Fastify, { type InjectOptions } from 'fastify'
import websocket from '@fastify/websocket'
import t from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { refusalsOf, startListening } from '../helpers/relay-app.ts'
import { testTunnels } from '../helpers/coexistence.ts'

// An injected request has no socket that could become a tunnel: it is a plain GET, whatever it asks for.

const asks: Record<string, Partial<InjectOptions>> = {
  'without headers': {},
  'with the headers of an upgrade': { headers: { connection: 'Upgrade', upgrade: 'spanza' } },
  'with all that a client of ours sends': { headers: { connection: 'Upgrade', upgrade: 'spanza', 'spanza-framing': 'wg, len16', host: 'relay.example.com' } },
  'with the headers of another upgrade': { headers: { connection: 'Upgrade', upgrade: 'h2c' } },
  'with a body': { headers: { connection: 'Upgrade', upgrade: 'spanza' }, payload: 'body' },
  'from another address': { headers: { connection: 'Upgrade', upgrade: 'spanza' }, remoteAddress: '192.0.2.1' },
  'that breaks off': { headers: { connection: 'Upgrade', upgrade: 'spanza' }, simulate: { close: false, end: true, error: false, split: true } }
}

for (const beside of ['alone', 'beside @fastify/websocket']) {
  for (const state of ['before it listens', 'while it listens']) {
    t.test(`an injected request to a relay route is answered 426, ${beside}, ${state}`, async (t) => {
      const app = Fastify()
      if (beside !== 'alone') await app.register(websocket)
      await app.register(spanzaRelay)
      let hooked = 0
      app.relay('/relay/:channel', { onRequest: async () => { hooked++ } })
      app.get('/rest', async () => 'rest')
      if (state === 'while it listens') await startListening(t, app)
      const refusals = refusalsOf(app)
      for (const [how, options] of Object.entries(asks)) {
        await t.test(how, async (t) => {
          const answer = await app.inject({ ...options, url: '/relay/x' })
          t.equal(answer.statusCode, 426)
          t.match(answer.headers, { connection: 'close, upgrade', upgrade: 'spanza, UoTLV/1, websocket', 'content-type': /^application\/json/ })
          t.match(answer.json(), { code: 'FST_RELAY_UPGRADE_REQUIRED' })
          t.equal((await app.inject({ ...options, url: '/rest' })).body, 'rest')
        })
      }
      t.equal((await app.inject({ method: 'HEAD', url: '/relay/x' })).statusCode, 404)
      t.equal((await app.inject({ method: 'POST', url: '/relay/x', headers: { connection: 'Upgrade', upgrade: 'spanza' }, payload: {} })).statusCode, 404)
      t.same(refusals, [], 'none of them was a handshake')
      t.equal(hooked, 0)
      t.match(app.relayHub.stats(), { attached: 0, peers: 0 })
      if (state === 'while it listens') await testTunnels(t, app)
      else await app.close()
    })
  }
}
