import { join } from 'node:path'
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { parseCommand, UsageError, type Command } from '../../lib/cli/arguments.ts'

/** The options of a command line that can be used. */
function options (args: string[], env: NodeJS.ProcessEnv = {}) {
  const command = parseCommand(['connect', 'https://relay.example.com/', ...args], env)
  return (command as Command & { name: 'connect' }).options
}

t.test('without options takes the sidecar’s defaults', async (t) => {
  t.same(parseCommand(['connect', 'https://relay.example.com/'], {}), {
    name: 'connect', options: { url: 'https://relay.example.com/', protocol: 'auto' }, json: false, warnings: []
  })
})

t.test('passes all options on', async (t) => {
  const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
  const [ca, cert, key] = ['ca.pem', 'client.pem', 'client-key.pem'].map((name) => readFileSync(fixture(name), 'utf8'))
  const command = parseCommand([
    'connect', 'https://relay.example.com/', '--listen', '127.0.0.1:1', '--forward', '127.0.0.1:2',
    '--header', 'X-One: 1', '--header', 'X-Two:2', '--header', 'X-One: a: b', '--framing', 'len16, wg', '--host', 'host', '--servername', 'name',
    '--ca', fixture('ca.pem'), '--cert', fixture('client.pem'), '--key', fixture('client-key.pem'), '--insecure', '--retry-replaced', '--json'
  ], {})
  t.match(command, {
    name: 'connect',
    json: true,
    warnings: [/--insecure/],
    options: {
      url: 'https://relay.example.com/',
      listen: '127.0.0.1:1',
      forward: '127.0.0.1:2',
      headers: { 'X-One': ['1', 'a: b'], 'X-Two': ['2'] },
      framings: ['len16', 'wg'],
      host: 'host',
      servername: 'name',
      retryReplaced: true
    }
  })
  const { tls } = (command as Command & { name: 'connect' }).options
  t.same((tls as () => unknown)(), { ca, cert, key, rejectUnauthorized: false })
})

t.test('certificates and keys are read anew each time', async (t) => {
  const fixture = (name: string) => readFileSync(new URL(`../fixtures/${name}`, import.meta.url), 'utf8')
  const directory = t.testdir({ cert: fixture('client.pem'), key: fixture('client-key.pem') })
  const [cert, key] = [join(directory, 'cert'), join(directory, 'key')]
  const tls = options(['--cert', cert, '--key', key]).tls as () => { cert: string }
  t.equal(tls().cert, fixture('client.pem'))
  writeFileSync(cert, 'renewed')
  t.equal(tls().cert, 'renewed')
  unlinkSync(cert)
  t.throws(tls, { message: /--cert cannot be read: .*ENOENT/ })
})

t.test('headers with names that objects have', async (t) => {
  const { headers } = options(['--header', 'constructor: x', '--header', '__proto__: y', '--header', '__proto__: z'])
  t.same(Object.entries(headers!), [['constructor', ['x']], ['__proto__', ['y', 'z']]])
})

t.test('tokens as people store them', async (t) => {
  const files = t.testdir({
    bom: Buffer.from('\ufefftoken\r\n'),
    utf16: Buffer.from('\ufefftoken\r\n', 'utf16le'),
    'utf16-bare': Buffer.from('token', 'utf16le'),
    empty: ' \n',
    lines: 'token\nother\n',
    binary: Buffer.from([1, 2, 3])
  })
  const tokenOf = (name: string) => (options(['--token-file', join(files, name)]).token as () => Promise<string>)()
  t.equal(await tokenOf('bom'), 'token')
  const faults: Array<[string, RegExp]> = [
    ['utf16', /utf16 is UTF-16, as PowerShell writes it: save it as UTF-8/],
    ['utf16-bare', /is UTF-16/],
    ['empty', /the token file .*empty is empty/],
    ['lines', /lines has a line break in the middle/],
    ['binary', /binary has characters that no header may have/]
  ]
  for (const [name, message] of faults) t.throws(() => options(['--token-file', join(files, name)]), { message }, name)
  t.equal(options([], { SPANZA_TOKEN: 'token\r\n' }).token, 'token')
  t.equal(options([], { SPANZA_TOKEN: '\n' }).token, undefined)
  t.throws(() => options([], { SPANZA_TOKEN: 'secret\nsecret' }), { message: 'SPANZA_TOKEN has a line break in the middle: it must hold one token on one line' })
  // Later, it is an attempt that fails.
  const later = options(['--token-file', join(files, 'bom')]).token as () => Promise<string>
  writeFileSync(join(files, 'bom'), '')
  await t.rejects(later(), { message: /is empty/ })
})

t.test('warns of a token that goes in the clear', async (t) => {
  const warnings = (url: string, args: string[] = [], env = { SPANZA_TOKEN: 'token' }) =>
    (parseCommand(['connect', url, ...args], env) as Command & { name: 'connect' }).warnings
  t.match(warnings('http://relay.example.com/'), [/^http: is not encrypted: anyone on the path can read the token; use https:$/])
  t.equal(warnings('http://relay.example.com/', ['--header', 'authorization: x'], { SPANZA_TOKEN: '' }).length, 1)
  for (const url of ['https://relay.example.com/', 'http://localhost:3000/', 'http://127.0.0.1/', 'http://[::1]/']) t.same(warnings(url), [], url)
  t.same(warnings('http://relay.example.com/', [], { SPANZA_TOKEN: '' }), [])
})

t.test('a WebSocket is one without a key only if that is asked for', async (t) => {
  t.same(options(['--protocol', 'websocket']), { url: 'https://relay.example.com/', protocol: 'websocket' })
  t.same(options(['--protocol', 'websocket', '--keyless']), { url: 'https://relay.example.com/', protocol: 'websocket', keyless: true })
  t.same(options(['--protocol', 'spanza']), { url: 'https://relay.example.com/', protocol: 'spanza' })
})

t.test('HTTP/2 has to be asked for', async (t) => {
  t.same(options(['--http2']), { url: 'https://relay.example.com/', protocol: 'auto', httpVersion: 2 })
})

t.test('the keepalive is in seconds, and the timeout no shorter than by default', async (t) => {
  t.match(options(['--keepalive', '10']), { keepaliveInterval: 10_000, keepaliveTimeout: 75_000 })
  t.match(options(['--keepalive', '100']), { keepaliveInterval: 100_000, keepaliveTimeout: 300_000 })
  for (const value of ['0', '3601', '10s', '1.5', '']) {
    t.throws(() => options(['--keepalive', value]), { message: `--keepalive takes whole seconds from 1 to 3600, such as 10, not ${value}` })
  }
})

t.test('metrics are served where it says, on a loopback address', async (t) => {
  const metrics = (value: string) => parseCommand(['connect', 'https://relay.example.com/', '--metrics', value], {})
  t.match(metrics('127.0.0.1:9101'), { metrics: { host: '127.0.0.1', port: 9101 } })
  t.match(metrics('[::1]:0'), { metrics: { host: '::1', port: 0 } })
})

t.test('reads the token’s file anew each time, else the environment', async (t) => {
  const file = join(t.testdir({ token: ' first\n' }), 'token')
  const { token } = options(['--token-file', file], { SPANZA_TOKEN: 'other' })
  t.equal(await (token as () => Promise<string>)(), 'first')
  writeFileSync(file, 'second')
  t.equal(await (token as () => Promise<string>)(), 'second')
  t.equal(options([], { SPANZA_TOKEN: 'other' }).token, 'other')
  t.equal(options([], { SPANZA_TOKEN: '' }).token, undefined)
})

t.test('says what is wrong with a command line, and shows no secrets', async (t) => {
  const [caFile, keyFile] = ['ca.pem', 'server-key.pem'].map((name) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))) as [string, string]
  const url = 'https://relay.example.com/'
  const cases: Array<[string[], RegExp]> = [
    [[], /a command is missing/],
    [['listen'], /no command "listen"/],
    [['connect'], /URL of the relay is missing/],
    [['connect', url, 'more'], /one URL, not "more" as well/],
    [['connect', url, '--bogus'], /Unknown option '--bogus'/],
    [['connect', url, '--listen'], /--listen/],
    [['connect', url, '--token', 'secret'], /can be read by every user of this machine: use --token-file/],
    [['connect', url, '--token=secret'], /use --token-file/],
    [['connect', url, '--header', 'secret'], /--header takes a name and a value/],
    [['connect', url, '--token-file', '/nowhere'], /--token-file cannot be read: .*ENOENT/],
    [['connect', url, '--ca', '/nowhere'], /--ca cannot be read/],
    [['connect', url, '--ca', caFile, '--key', fileURLToPath(import.meta.url)], /--ca, --key cannot be used, they must be PEM files/],
    [['connect', url, '--ca', keyFile], /^--ca .*server-key\.pem holds no certificate: it must be the CA's certificate in PEM, with a line -----BEGIN CERTIFICATE-----$/],
    [['connect', url, '--ca', '/dev/null'], /^--ca \/dev\/null holds no certificate/],
    [['connect', 'http://relay.example.com/', '--ca', caFile], /^--ca: for https: URLs only, and this one begins with http:\/\/; write https:\/\/, or leave --ca out$/],
    [['connect', 'http://relay.example.com/', '--insecure', '--ca', caFile], /^--ca, --insecure: for https: URLs only/],
    [['connect', 'ws://relay.example.com/', '--protocol', 'websocket', '--insecure'], /^--insecure: for wss: URLs only, and this one begins with ws:\/\/; write wss:\/\//],
    [['connect', url, '--protocol', 'quic'], /--protocol must be auto, spanza, websocket, not quic/],
    [['connect', url, '--keyless'], /--keyless goes with --protocol websocket only/],
    [['connect', url, '--metrics', '9101'], /--metrics takes an address and a port, .* not 9101/],
    [['connect', url, '--metrics', 'localhost:9101'], /--metrics takes an address/],
    [['connect', url, '--metrics', '0.0.0.0:9101'], /--metrics must be a loopback address, such as 127\.0\.0\.1:9101, not 0\.0\.0\.0:9101: the metrics need no credentials/],
    [['connect', url, '--metrics', '[::]:9101'], /--metrics must be a loopback address/]
  ]
  for (const [args, message] of cases) {
    try {
      parseCommand(args, {})
      t.fail(args.join(' '))
    } catch (error) {
      t.type(error, UsageError)
      t.match((error as Error).message, message)
      t.notMatch((error as Error).message, /secret/)
    }
  }
})

t.test('help and version need no URL', async (t) => {
  t.same(parseCommand(['--help'], {}), { name: 'help' })
  t.same(parseCommand(['connect', '-h'], {}), { name: 'help' })
  t.same(parseCommand(['--version'], {}), { name: 'version' })
})
