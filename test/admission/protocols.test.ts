import t from 'tap'
import { protocolNames, protocols } from '../../lib/admission/protocols.ts'
import { framingNames } from '../../lib/framing/framings.ts'
import { openBare, startApp } from '../helpers/relay-app.ts'

t.test('these protocols and framings are spoken', (t) => {
  t.same(protocolNames, ['spanza', 'UoTLV/1', 'websocket'])
  t.same(framingNames, ['wg', 'len16', 'raw'])
  t.end()
})

t.test('what a protocol and a list of framings come to', async (t) => {
  const cases: Array<[Record<string, string | string[]>, object]> = [
    [{}, { protocol: 'spanza', framing: 'raw', channel: { kind: 'stream' } }],
    [{ 'Spanza-Framing': 'raw, wg' }, { protocol: 'spanza', framing: 'raw', channel: { kind: 'stream' } }],
    [{ 'Spanza-Framing': 'wg, len16' }, { protocol: 'spanza', framing: 'wg', channel: { kind: 'packet' } }],
    [{ 'spanza-framing': 'LEN16 , WG' }, { protocol: 'spanza', framing: 'len16', channel: { kind: 'packet' } }],
    [{ 'Spanza-Framing': ['new', 'newer, len16'] }, { protocol: 'spanza', framing: 'len16', channel: { kind: 'packet' } }],
    [{ Upgrade: 'uotlv/1' }, { protocol: 'UoTLV/1', framing: 'len16', channel: { kind: 'packet' } }],
    [{ Upgrade: 'UoTLV/1', 'Spanza-Framing': 'none' }, { protocol: 'UoTLV/1', framing: 'len16', channel: { kind: 'packet' } }],
    [{ Upgrade: 'UoTLV/1, spanza' }, { protocol: 'UoTLV/1' }],
    [{ Upgrade: ['h2c', 'spanza'] }, { protocol: 'spanza' }]
  ]
  for (const [headers, peer] of cases) {
    await t.test(JSON.stringify(headers), async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay'))
      await openBare(t, app, '/relay', { headers })
      t.match(app.relayHub.peers(), [peer])
    })
  }
})

t.test('only what both sides can keep alive gets keepalives', (t) => {
  t.equal(protocols.spanza({}, framingNames, 1).hasKeepalive, false)
  t.equal(protocols.spanza({ 'spanza-framing': 'wg' }, framingNames, 1).hasKeepalive, true)
  t.equal(protocols.spanza({ 'spanza-framing': 'len16' }, framingNames, 1).hasKeepalive, true)
  t.equal(protocols['UoTLV/1']({}, framingNames, 1).hasKeepalive, false)
  t.end()
})
