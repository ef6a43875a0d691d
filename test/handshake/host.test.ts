import t from 'tap'
import { lines, refused, startTable, switched, testTable, unparsable, type Expected, type Row } from '../helpers/handshake-table.ts'

const ask = (...headers: string[]): string => lines('GET /relay HTTP/1.1', 'Connection: Upgrade', 'Upgrade: spanza', ...headers)
const hostOf = (host: string): string => ask(`Host: ${host}`)
const hostHeader = (count: string): Expected =>
  refused(400, 'FST_RELAY_HOST_HEADER', `An upgrade request must have exactly one Host header, this one has ${count}`)
const notAllowed = (host: string): Expected => refused(421, 'FST_RELAY_HOST_NOT_ALLOWED', `No relay at the host "${host}"`)

/** What is wrong with or without the option `hosts`. */
const malformed: Row[] = [
  ['missing', ask(), hostHeader('none')],
  ['twice', ask('Host: relay.example.com', 'Host: other.example.com'), hostHeader('2')],
  ['twice the same', ask('Host: relay.example.com', 'Host: relay.example.com'), hostHeader('2')],
  ['twice, in other letters', ask('Host: relay.example.com', 'hOST: relay.example.com'), hostHeader('2')],
  ['three times', ask('Host: a', 'Host: b', 'Host: c'), hostHeader('3')],
  ['twice, the second empty', ask('Host: relay.example.com', 'Host:'), hostHeader('2')],
  ['only as X-Forwarded-Host', ask('X-Forwarded-Host: relay.example.com'), hostHeader('none')],
  ['with NUL', hostOf('relay\0.example.com'), unparsable()],
  ['with DEL', hostOf('relay\x7f.example.com'), unparsable()]
]

const odd = [
  'relay.example.com', 'RELAY.Example.COM', 'relay.example.com:8443', 'relay.example.com.', 'relay.example.com.:443', 'other.example.com',
  '192.0.2.1', '192.0.2.1:80', '[2001:db8::1]', '[2001:db8::1]:443', '[2001:db8::1', '2001:db8::1', '[fe80::1%25eth0]:1',
  'xn--bcher-kva.example', 'b\u00fccher.example', '', 'user@relay.example.com', 'user:password@relay.example.com', 'relay.example.com/path',
  'relay.example.com?x', 'relay.example.com#x', 'relay.example.com, other.example.com', 'relay example com', 'relay.example.com:', 'relay.example.com:x',
  'relay.example.com:80:90', 'relay.example.com..', '.relay.example.com', '*', '<script>', '%72elay.example.com', `${'a'.repeat(5000)}.example.com`
]

t.test('Host, where the route answers to any', async (t) => {
  const app = await startTable(t)
  await testTable(t, app, [
    ...malformed,
    ...odd.map((host): Row => [`"${host.slice(0, 40)}"`, hostOf(host), switched()])
  ])
})

t.test('Host, where the route answers to some', async (t) => {
  const hosts = ['relay.example.com', 'Port.Example.com:8443', 'dot.example.com.', '[2001:db8::1]', '192.0.2.1', 'xn--bcher-kva.example']
  const app = await startTable(t, (app) => app.relay('/relay', { hosts }))
  await testTable(t, app, [
    ...malformed,
    ...[
      'relay.example.com', 'RELAY.Example.COM', 'relay.example.com:8443', 'relay.example.com:1', 'relay.example.com.', 'relay.example.com.:443',
      'relay.example.com:', 'relay.example.com:x', 'port.example.com', 'PORT.EXAMPLE.COM:8443', 'port.example.com:1', 'dot.example.com', 'dot.example.com.', 'DOT.example.com.:80',
      '[2001:db8::1]', '[2001:db8::1]:443', '[2001:DB8::1]:443', '192.0.2.1', '192.0.2.1:80', 'xn--bcher-kva.example', 'XN--BCHER-KVA.example', ' \trelay.example.com \t'
    ].map((host): Row => [`"${host}" is one of them`, hostOf(host), switched()]),
    ...([
      ['', ''],
      ['example.com', 'example.com'],
      ['xrelay.example.com', 'xrelay.example.com'],
      ['relay.example.com.evil.org', 'relay.example.com.evil.org'],
      ['evil.org#relay.example.com', 'evil.org#relay.example.com'],
      ['relay.example.com..', 'relay.example.com..'],
      ['.relay.example.com', '.relay.example.com'],
      ['user@relay.example.com', 'user@relay.example.com'],
      ['relay.example.com@evil.org', 'relay.example.com@evil.org'],
      ['relay.example.com/path', 'relay.example.com/path'],
      ['/relay.example.com', '/relay.example.com'],
      ['relay.example.com?x', 'relay.example.com?x'],
      ['relay.example.com, evil.org', 'relay.example.com, evil.org'],
      ['evil.org, relay.example.com', 'evil.org, relay.example.com'],
      ['relay.example.com evil.org', 'relay.example.com evil.org'],
      ['relay example com', 'relay example com'],
      ['%72elay.example.com', '%72elay.example.com'],
      ['[2001:db8::2]', '[2001:db8::2]'],
      ['[2001:db8:0::1]', '[2001:db8:0::1]'],
      ['[::ffff:192.0.2.1]', '[::ffff:192.0.2.1]'],
      ['192.0.2.1.', undefined],
      ['3221225985', '3221225985'],
      ['b\u00fccher.example', 'b\u00c3\u00bccher.example'],
      ['*', '*'],
      ['__proto__', '__proto__'],
      ['xn--bcher-kva.example.org', 'xn--bcher-kva.example.org']
    ] as Array<[string, string | undefined]>).map(([host, told]): Row =>
      [`"${host}" is ${told === undefined ? 'one of them' : 'none'}`, hostOf(host), told === undefined ? switched() : notAllowed(told)])
  ])
})

t.test('X-Forwarded-Host', async (t) => {
  const relay = { hosts: ['relay.example.com'] }
  const forwarded = (...hosts: string[]): string => ask('Host: inside', ...hosts.map((host) => `X-Forwarded-Host: ${host}`))
  const rightly = ask('Host: relay.example.com', 'X-Forwarded-Host: evil.org')

  for (const trustProxy of [true, '127.0.0.1', '127.0.0.0/8', 'loopback', ['10.0.0.1', '127.0.0.1'], (address: string) => address === '127.0.0.1']) {
    await t.test(`counts from a proxy that is trusted (${String(trustProxy)})`, async (t) => {
      const app = await startTable(t, (app) => app.relay('/relay', relay), { server: { trustProxy } })
      await testTable(t, app, [
        ['alone', forwarded('relay.example.com'), switched()],
        ['with a port, in capitals, with a dot', forwarded('RELAY.example.com.:443'), switched()],
        ['the last of a list, which the nearest proxy has written', forwarded('evil.org, relay.example.com'), switched()],
        ['the last of two headers', forwarded('evil.org', 'relay.example.com'), switched()],
        ['not the first', forwarded('relay.example.com, evil.org'), notAllowed('evil.org')],
        ['not the first of two headers', forwarded('relay.example.com', 'evil.org'), notAllowed('evil.org')],
        ['against Host', rightly, notAllowed('evil.org')],
        ['not where it is empty', ask('Host: relay.example.com', 'X-Forwarded-Host:'), switched()],
        ['an empty end of a list', forwarded('relay.example.com,'), notAllowed('')],
        ['not in place of Host', ask('X-Forwarded-Host: relay.example.com'), hostHeader('none')]
      ])
    })
  }
  for (const trustProxy of [false, '10.0.0.1', ['10.0.0.0/8', '2001:db8::/32'], () => false]) {
    await t.test(`does not count from anybody else (${String(trustProxy)})`, async (t) => {
      const app = await startTable(t, (app) => app.relay('/relay', relay), { server: { trustProxy } })
      await testTable(t, app, [
        ['alone', forwarded('relay.example.com'), notAllowed('inside')],
        ['a list', forwarded('evil.org, relay.example.com'), notAllowed('inside')],
        ['against Host', rightly, switched()]
      ])
    })
  }
})
