import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { canonicalAddress, clientAddress, limitKey, UntrustedProxyCheck } from '../../lib/admission/client-address.ts'
import { upgradeText } from '../helpers/raw-client.ts'
import { openBare, refusalsOf, startApp, testRefusal } from '../helpers/relay-app.ts'

const TRUSTED = { server: { trustProxy: '127.0.0.1' } }

t.test('clientAddress', (t) => {
  const addresses: Array<[string | undefined, string | undefined]> = [
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:DB8::1', '2001:db8::1'],
    ['2001:db8:0:0:0:0:0:1', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['fe80::1%br-lan', 'fe80::1'],
    ['fe80::1%wlan0.100', 'fe80::1'],
    ['192.0.2.1:5678', '192.0.2.1'],
    ['[2001:db8::1]', '2001:db8::1'],
    [undefined, undefined],
    ['', undefined]
  ]
  for (const [ip, address] of addresses) t.equal(clientAddress(ip), address, String(ip))
  for (const ip of ['garbage', 'unknown', '192.0.2', '0x7f.1', '192.0.2.256', ' 192.0.2.1', '_hidden']) {
    t.throws(() => clientAddress(ip), { code: 'FST_RELAY_CLIENT_ADDRESS' }, ip)
    t.equal(canonicalAddress(ip), undefined)
  }
  t.end()
})

t.test('limits go by the IPv4 address or the /64', (t) => {
  t.equal(limitKey('192.0.2.1'), '192.0.2.1')
  t.equal(limitKey('2001:db8:1:2::1'), limitKey('2001:db8:1:2:ffff:ffff:ffff:ffff'))
  t.not(limitKey('2001:db8:1:2::1'), limitKey('2001:db8:1:3::1'))
  t.end()
})

t.test('what proxies say about the client', async (t) => {
  await t.test('is believed of a trusted one', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay/:channel'), TRUSTED)
    const sent: Array<[string, string]> = [['203.0.113.9', '203.0.113.9'], ['1.1.1.1, 203.0.113.9', '203.0.113.9'], ['::ffff:203.0.113.9', '203.0.113.9'], ['fe80::1%br-lan', 'fe80::1']]
    for (const [index, [header, address]] of sent.entries()) {
      await openBare(t, app, `/relay/${index}`, { headers: { 'X-Forwarded-For': header } })
      t.equal(app.relayHub.peers().find(({ channel }) => channel.name === String(index))!.address, address, header)
    }
  })
  for (const garbage of ['garbage', 'unknown', '<script>', '1.2.3.4, _x']) {
    await t.test(`${garbage} from a trusted one is refused`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay'), TRUSTED)
      const bytes = upgradeText('/relay', { headers: { 'X-Forwarded-For': garbage } })
      const expected = { statusCode: 400, code: 'FST_RELAY_CLIENT_ADDRESS', message: garbage.split(', ').pop()! } as const
      await testRefusal(t, app, bytes, expected)
    })
    await t.test(`${garbage} from anybody else is ignored`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay'), { server: { trustProxy: '10.0.0.0/8' } })
      await openBare(t, app, '/relay', { headers: { 'X-Forwarded-For': garbage } })
      t.equal(app.relayHub.peers()[0]!.address, '127.0.0.1')
    })
  }
  await t.test('is told of a refusal, too', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', { identify: () => ({ id: '' }) }), TRUSTED)
    const refusals = refusalsOf(app)
    const bytes = upgradeText('/relay?token=secret', { headers: { 'X-Forwarded-For': '203.0.113.9' } })
    await testRefusal(t, app, bytes, { statusCode: 500, code: 'FST_RELAY_IDENTITY' })
    t.same(refusals, [{ statusCode: 500, code: 'FST_RELAY_IDENTITY', message: "identify() returned an unusable id: '', not a string of 1 to 255 characters", address: '203.0.113.9', path: '/relay' }], 'without the query, which may hold a secret')
  })
})

t.test('a unix socket has no addresses, and no limits by address', async (t) => {
  // Such a path can be 107 bytes long, no more.
  const directory = mkdtempSync(join(tmpdir(), 'relay-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'socket')
  const app = await startApp(t, (app) => app.relay('/relay/:channel'),
    { listen: { path }, relay: { clientHandshakesPerSecond: 1, maxClientUnfinishedHandshakes: 1 } })
  for (let i = 0; i < 10; i++) await openBare(t, app, `/relay/${i}`, {}, { path })
  t.same(new Set(app.relayHub.peers().map(({ address }) => address)), new Set([undefined]))
  const refusals = refusalsOf(app)
  await testRefusal(t, app, upgradeText('/relay/x', { headers: { 'Spanza-Framing': 'none' } }), { statusCode: 400, code: 'FST_RELAY_FRAMING' }, { path })
  t.match(refusals, [{ address: undefined }])
})

t.test('UntrustedProxyCheck tells once, when ten tunnels were forwarded from one address and none came otherwise', (t) => {
  const told = (...tunnels: Array<[string | undefined, boolean]>): number => {
    const check = new UntrustedProxyCheck()
    return tunnels.filter(([address, forwarded]) => check.seems(address, forwarded)).length
  }
  const forwarded = Array<[string, boolean]>(9).fill(['10.0.0.1', true])
  t.equal(told(...forwarded), 0)
  t.equal(told(...forwarded, ...forwarded, ...forwarded), 1)
  t.equal(told(['10.0.0.2', true], ...forwarded, ...forwarded), 0, 'another address')
  t.equal(told(['10.0.0.1', false], ...forwarded, ...forwarded), 0, 'one that was not forwarded')
  t.equal(told([undefined, true], ...forwarded, ...forwarded), 0, 'a unix socket')
  t.end()
})

t.test('a proxy that is not trusted is warned about once', async (t) => {
  const warnings: object[] = []
  const app = await startApp(t, (app) => app.relay('/relay/:channel', { open: true }), {
    server: { logger: { level: 'warn', stream: { write: (line: string) => { warnings.push(JSON.parse(line)) } } } }
  })
  for (let i = 0; i < 25; i++) await openBare(t, app, `/relay/${i}`, { headers: { 'X-Forwarded-For': `203.0.113.${i}` } })
  t.match(warnings, [{ msg: /set trustProxy/, address: '127.0.0.1' }])
  t.equal(warnings.length, 1)
})
