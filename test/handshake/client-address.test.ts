import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify, { type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { lines, refused, roomy, startTable, switched, testTable, type Expected, type Row } from '../helpers/handshake-table.ts'
import { RawClient, type DialOptions } from '../helpers/raw-client.ts'
import { startListening } from '../helpers/relay-app.ts'

type TrustProxy = FastifyServerOptions['trustProxy']

/** An address, undefined for none, or what a trusted proxy has sent that is no address. */
type Seen = string | undefined | { noAddress: string }

const ask = (...headers: string[]): string => lines('GET /relay HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza', ...headers)
const forwarded = (...values: string[]): string => ask(...values.map((value) => `X-Forwarded-For: ${value}`))
const notAnAddress = (told: string): Expected => refused(400, 'FST_RELAY_CLIENT_ADDRESS', `A trusted proxy sent "${told}" as the client address, which is not an IP address`)

/**
 * Tests, row by row, whose address the relay takes for the client's: that of `peers()`.
 * @param rows `ip` is what `identify` finds in `request.ip`, which is Fastify's, where that is not the same
 */
async function testAddresses (
  t: Test, trustProxy: TrustProxy, rows: Array<[title: string, sent: string, seen: Seen, ip?: string]>, dial?: DialOptions
): Promise<void> {
  const identified: Array<string | undefined> = []
  const app = await startTable(t, (app) => app.relay('/relay', { identify: ({ ip }) => ({ context: identified.push(ip) }) }),
    { server: { trustProxy } as FastifyServerOptions, ...(dial?.path === undefined ? {} : { listen: { path: dial.path } }) })
  const attached: Array<string | undefined> = []
  app.relayHub.on('attach', ({ address }) => { attached.push(address) })
  await testTable(t, app, rows.map(([title, sent, seen, ip]): Row => [title, sent, async (exchange) => {
    if (typeof seen === 'object') {
      await notAnAddress(seen.noAddress)(exchange)
      exchange.t.match(exchange.refusals, [{ address: '127.0.0.1' }], 'told with the address of the connection')
    } else {
      await switched()(exchange)
    }
    const isAdmitted = typeof seen !== 'object'
    exchange.t.same(attached.splice(0), isAdmitted ? [seen] : [], 'the peer\'s address')
    exchange.t.same(identified.splice(0), isAdmitted ? [ip ?? seen] : [], 'what identify sees')
  }]), dial)
}

const CLIENT = '203.0.113.9'
const LOCAL = '127.0.0.1'

t.test('X-Forwarded-For from a trusted proxy', async (t) => {
  await testAddresses(t, LOCAL, [
    ['missing', ask(), LOCAL],
    ['an address', forwarded(CLIENT), CLIENT],
    ['blanks and tabs around it', forwarded(` \t ${CLIENT} \t`), CLIENT],
    ['a chain: the last that the proxy has seen itself', forwarded(`198.51.100.1, ${CLIENT}`), CLIENT],
    ['a chain without blanks', forwarded(`198.51.100.1,${CLIENT}`), CLIENT],
    ['a chain that ends with trusted ones', forwarded(`198.51.100.1, ${CLIENT}, 127.0.0.1`), CLIENT],
    ['a chain of trusted ones alone: the first', forwarded('127.0.0.1, 127.0.0.1'), LOCAL],
    ['two headers are one chain', forwarded('198.51.100.1', CLIENT), CLIENT],
    ['two headers, garbage in the first, which nobody believes', forwarded('garbage', CLIENT), CLIENT],
    ['a chain that begins with garbage', forwarded(`garbage, ${CLIENT}`), CLIENT],
    ['IPv6', forwarded('2001:db8::9'), '2001:db8::9'],
    ['IPv6 in long form and capitals', forwarded('2001:0DB8:0:0:0:0:0:9'), '2001:db8::9', '2001:0DB8:0:0:0:0:0:9'],
    ['IPv6 with a zone id', forwarded('fe80::9%eth0'), 'fe80::9', 'fe80::9%eth0'],
    ['IPv4 mapped into IPv6', forwarded(`::ffff:${CLIENT}`), CLIENT, `::ffff:${CLIENT}`],
    ['IPv4 mapped into IPv6, in hexadecimal', forwarded('::ffff:cb00:7109'), CLIENT, '::ffff:cb00:7109'],
    ['a trusted one, mapped, behind the client', forwarded(`${CLIENT}, ::ffff:127.0.0.1`), CLIENT],
    ['empty', forwarded(''), LOCAL],
    ['commas alone', forwarded(', ,'), LOCAL],
    ['an empty end of a chain', forwarded(`${CLIENT},`), CLIENT],
    // As Azure's gateways and IIS send it.
    ['an address and a port', forwarded(`${CLIENT}:5678`), CLIENT, `${CLIENT}:5678`],
    ['a chain that ends with an address and a port', forwarded(`198.51.100.1:1, ${CLIENT}:5678`), CLIENT, `${CLIENT}:5678`],
    ['IPv6 in brackets', forwarded('[2001:db8::9]'), '2001:db8::9', '[2001:db8::9]'],
    ['IPv6 in brackets, and a port', forwarded('[2001:db8::9]:5678'), '2001:db8::9', '[2001:db8::9]:5678'],
    ['IPv4 mapped into IPv6, in brackets', forwarded(`[::ffff:${CLIENT}]:5678`), CLIENT, `[::ffff:${CLIENT}]:5678`],
    ['IPv6 with a zone id, in brackets', forwarded('[fe80::9%eth0]:5678'), 'fe80::9', '[fe80::9%eth0]:5678'],
    ['quotes', forwarded(`"${CLIENT}"`), CLIENT, `"${CLIENT}"`],
    ['quotes around an address and a port', forwarded(`"${CLIENT}:5678"`), CLIENT, `"${CLIENT}:5678"`],
    ['quotes around IPv6 in brackets, and a port', forwarded('"[2001:db8::9]:5678"'), '2001:db8::9', '"[2001:db8::9]:5678"'],
    ['one quote', forwarded(`"${CLIENT}`), { noAddress: `"${CLIENT}` }],
    ['one bracket', forwarded('[2001:db8::9'), { noAddress: '[2001:db8::9' }],
    ['IPv4 in brackets', forwarded(`[${CLIENT}]`), { noAddress: `[${CLIENT}]` }],
    ['a port that is none', forwarded(`${CLIENT}:x`), { noAddress: `${CLIENT}:x` }],
    ['an empty port', forwarded(`${CLIENT}:`), { noAddress: `${CLIENT}:` }],
    ['a port of six digits', forwarded(`${CLIENT}:567890`), { noAddress: `${CLIENT}:567890` }],
    ['a port alone', forwarded(':5678'), { noAddress: ':5678' }],
    ['unknown, and a port', forwarded('unknown:5678'), { noAddress: 'unknown:5678' }],
    ['for=, as in Forwarded', forwarded(`for=${CLIENT}`), { noAddress: `for=${CLIENT}` }],
    ['garbage', forwarded('garbage'), { noAddress: 'garbage' }],
    ['garbage at the end of a chain', forwarded(`${CLIENT}, garbage`), { noAddress: 'garbage' }],
    ['unknown', forwarded('unknown'), { noAddress: 'unknown' }],
    ['an obfuscated name', forwarded('_hidden'), { noAddress: '_hidden' }],
    ['a host name', forwarded('client.example.com'), { noAddress: 'client.example.com' }],
    ['a network', forwarded('203.0.113.0/24'), { noAddress: '203.0.113.0/24' }],
    ['three parts', forwarded('203.0.113'), { noAddress: '203.0.113' }],
    ['a number', forwarded('3405803785'), { noAddress: '3405803785' }],
    ['octal', forwarded('0313.0.0161.011'), { noAddress: '0313.0.0161.011' }],
    ['a part above 255', forwarded('203.0.113.256'), { noAddress: '203.0.113.256' }],
    ['two addresses without a comma', forwarded(`198.51.100.1 ${CLIENT}`), { noAddress: `198.51.100.1 ${CLIENT}` }],
    ['a zone id alone', forwarded('%eth0'), { noAddress: '%eth0' }],
    ['markup', forwarded('<script>'), { noAddress: '<script>' }],
    ['5,000 letters', forwarded('x'.repeat(5000)), { noAddress: `${'x'.repeat(255)}…` }],
    ['a chain of 1,000', forwarded(`${'198.51.100.1, '.repeat(1000)}${CLIENT}`), CLIENT],
    ['Forwarded (RFC 7239) is not what Fastify goes by', ask(`Forwarded: for=${CLIENT}`), LOCAL],
    ['nor X-Real-IP', ask(`X-Real-IP: ${CLIENT}`), LOCAL]
  ])
})

t.test('X-Forwarded-For from anybody else is of no effect', async (t) => {
  for (const trustProxy of [false, '10.0.0.0/8', ['10.0.0.0/8', '2001:db8::/32'], () => false]) {
    await t.test(`trustProxy: ${String(trustProxy)}`, async (t) => {
      await testAddresses(t, trustProxy, [
        CLIENT, `198.51.100.1, ${CLIENT}`, '10.0.0.1', '127.0.0.1', '2001:db8::9', '[2001:db8::9]:5678', `${CLIENT}:5678`,
        'garbage', 'unknown', '_hidden', ''
      ].map((value) => [value, forwarded(value), LOCAL]))
    })
  }
})

t.test('every form of trustProxy', async (t) => {
  const hops: Array<[string | undefined, number]> = []
  const forms: Array<[title: string, trustProxy: TrustProxy, chained: string, single: string]> = [
    ['none', undefined, LOCAL, LOCAL],
    ['false', false, LOCAL, LOCAL],
    ['true believes the first of the chain, which anybody can write', true, '198.51.100.1', CLIENT],
    ['an address', LOCAL, CLIENT, CLIENT],
    ['a network', '127.0.0.0/8', CLIENT, CLIENT],
    ['a network and its mask', '127.0.0.0/255.0.0.0', CLIENT, CLIENT],
    ['a name for networks', 'loopback', CLIENT, CLIENT],
    ['a list in a string', '10.0.0.1, 127.0.0.1', CLIENT, CLIENT],
    ['a list', ['10.0.0.1', LOCAL], CLIENT, CLIENT],
    ['a list with the client in it', [LOCAL, `${CLIENT}/32`], '198.51.100.1', CLIENT],
    ['a list without the proxy', ['10.0.0.1'], LOCAL, LOCAL],
    ['a number trusts nobody in Fastify 5', 1 as unknown as true, LOCAL, LOCAL],
    ['0', 0 as unknown as false, LOCAL, LOCAL],
    ['a function of the address', (address) => address === LOCAL, CLIENT, CLIENT],
    ['a function of the hop', (_address, hop) => hop < 1, CLIENT, CLIENT],
    ['a function of two hops', (_address, hop) => hop < 2, '198.51.100.1', CLIENT],
    ['a function that notes what it is asked', (address, hop) => { hops.push([address, hop]); return hop < 1 }, CLIENT, CLIENT]
  ]
  for (const [title, trustProxy, chained, single] of forms) {
    await t.test(title, async (t) => {
      await testAddresses(t, trustProxy, [
        ['a chain', forwarded(`198.51.100.1, ${CLIENT}`), chained],
        ['an address', forwarded(CLIENT), single],
        ['none', ask(), LOCAL]
      ])
    })
  }
  t.ok(hops.some(([address, hop]) => address === LOCAL && hop === 0), 'a function is asked for the connection\'s address at hop 0')
  t.ok(hops.some(([address, hop]) => address === CLIENT && hop === 1), 'and for those behind it at the next')
})

t.test('a unix socket', async (t) => {
  // Such a path can be 107 bytes long, no more.
  const directory = mkdtempSync(join(tmpdir(), 'relay-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  const forms: Array<[title: string, trustProxy: TrustProxy, seen: string | undefined]> = [
    ['without a proxy', false, undefined],
    ['with one that is trusted by its address, which it does not have', LOCAL, undefined],
    ['with one that is trusted, whoever it is', true, CLIENT],
    ['with one that is trusted by its hop', (_address, hop) => hop < 1, CLIENT],
    ['with one that is trusted because it has no address', (address) => address === undefined, CLIENT]
  ]
  for (const [index, [title, trustProxy, seen]] of forms.entries()) {
    await t.test(title, async (t) => {
      await testAddresses(t, trustProxy, [
        ['X-Forwarded-For', forwarded(CLIENT), seen],
        ['none', ask(), undefined]
      ], { path: join(directory, String(index)) })
    })
  }
})

t.test('a proxy that proves itself by a secret header, as CDNs do', async (t) => {
  // Fastify's trustProxy is not asked about a request. What works: trust the hop, and take away what an unproven sender has
  // forwarded, in a hook before the plugin, so that limits, hosts and hooks all go by the same.
  const start = async (t: Test) => {
    const app = Fastify({ trustProxy: (_address, hop) => hop < 1 })
    app.addHook('onRequest', async ({ raw: { headers } }) => {
      if (headers['x-cdn-secret'] === 'a long random secret') return
      for (const name of ['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto']) delete headers[name]
    })
    await app.register(spanzaRelay, { ...roomy, clientHandshakesPerSecond: 1 })
    app.relay('/relay', { hosts: ['relay.example.com'] })
    return await startListening(t, app)
  }
  const secret = 'X-Cdn-Secret: a long random secret'
  const from = (address: string, host: string, ...headers: string[]): string =>
    lines('GET /relay HTTP/1.1', `Host: ${host}`, 'Connection: Upgrade', 'Upgrade: spanza', `X-Forwarded-For: ${address}`, 'X-Forwarded-Host: relay.example.com', ...headers)
  const seenAs = (address: string): Expected => async (exchange) => {
    const detached = once(exchange.app.relayHub, 'detach')
    await switched()(exchange)
    exchange.t.match(await detached, [{ address }])
  }

  await t.test('is believed', async (t) => {
    await testTable(t, await start(t), [
      ['an address', from(CLIENT, 'cdn.example.net', secret), seenAs(CLIENT)],
      ['the last of a chain, which is the CDN\'s', from(`198.51.100.1, ${CLIENT}`, 'cdn.example.net', secret), seenAs(CLIENT)]
    ])
  })
  await t.test('and nobody else is', async (t) => {
    await testTable(t, await start(t), [
      ['without the secret', from(CLIENT, 'relay.example.com'), seenAs(LOCAL)],
      ['with a wrong one', from(CLIENT, 'relay.example.com', 'X-Cdn-Secret: guess'), seenAs(LOCAL)],
      ['with the right one and another', from(CLIENT, 'relay.example.com', secret, secret), seenAs(LOCAL)],
      ['nor about the host', from(CLIENT, 'cdn.example.net'), refused(421, 'FST_RELAY_HOST_NOT_ALLOWED', 'No relay at the host "cdn.example.net"')]
    ])
  })
  await t.test('and the limits go by what is believed', async (t) => {
    const app = await start(t)
    const statusFor = async (address: string, ...headers: string[]): Promise<number> => {
      const client = await RawClient.dial(t, app)
      await client.send(from(address, 'relay.example.com', ...headers))
      const { statusCode } = await client.head()
      // A third tunnel of the channel would be refused for that.
      client.socket.destroy()
      return statusCode
    }
    let status = 0
    for (let i = 1; i < 255 && status !== 429; i++) status = await statusFor(`203.0.113.${i}`)
    t.equal(status, 429, 'addresses that somebody invents are all one')
    t.equal(await statusFor(CLIENT, secret), 101, 'and take nothing from those that the CDN tells')
  })
})
