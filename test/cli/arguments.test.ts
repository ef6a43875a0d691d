import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import t from 'tap'
import { parseCommand, UsageError, type Command } from '../../lib/cli/arguments.ts'

/** The options of a command line that can be used. */
function options (args: string[], env: NodeJS.ProcessEnv = {}) {
  const command = parseCommand(['connect', 'https://relay.example.com/', ...args], env)
  return (command as Command & { name: 'connect' }).options
}

t.test('without options takes the sidecar’s defaults', async (t) => {
  t.same(parseCommand(['connect', 'https://relay.example.com/'], {}), {
    name: 'connect', options: { url: 'https://relay.example.com/' }, json: false, warnings: []
  })
})

t.test('passes all options on', async (t) => {
  const directory = t.testdir({ ca: 'the CA', cert: 'the certificate', key: 'the key' })
  const file = (name: string) => join(directory, name)
  const command = parseCommand([
    'connect', 'https://relay.example.com/', '--listen', '127.0.0.1:1', '--forward', '127.0.0.1:2',
    '--header', 'X-One: 1', '--header', 'X-Two:2', '--header', 'X-One: a: b', '--framing', 'len16, wg', '--host', 'host', '--servername', 'name',
    '--ca', file('ca'), '--cert', file('cert'), '--key', file('key'), '--insecure', '--retry-replaced', '--json'
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
      tls: { ca: 'the CA', cert: 'the certificate', key: 'the key', rejectUnauthorized: false },
      retryReplaced: true
    }
  })
})

t.test('a WebSocket is asked for without a key', async (t) => {
  t.same(options(['--protocol', 'websocket']), { url: 'https://relay.example.com/', protocol: 'websocket', keyless: true })
  t.same(options(['--protocol', 'spanza']), { url: 'https://relay.example.com/', protocol: 'spanza' })
})

t.test('HTTP/2 has to be asked for', async (t) => {
  t.same(options(['--http2']), { url: 'https://relay.example.com/', httpVersion: 2 })
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
  const url = 'https://relay.example.com/'
  const cases: Array<[string[], RegExp]> = [
    [[], /a command is missing/],
    [['listen'], /no command "listen"/],
    [['connect'], /URL of the relay is missing/],
    [['connect', url, 'more'], /"more" is too much/],
    [['connect', url, '--bogus'], /Unknown option '--bogus'/],
    [['connect', url, '--listen'], /--listen/],
    [['connect', url, '--token', 'secret'], /can be read by every user of this machine: use --token-file/],
    [['connect', url, '--token=secret'], /use --token-file/],
    [['connect', url, '--header', 'secret'], /--header takes a name and a value/],
    [['connect', url, '--token-file', '/nowhere'], /--token-file cannot be read: .*ENOENT/],
    [['connect', url, '--ca', '/nowhere'], /--ca cannot be read/],
    [['connect', url, '--metrics', '9101'], /--metrics takes an address and a port, .* not 9101/],
    [['connect', url, '--metrics', 'localhost:9101'], /--metrics takes an address/],
    [['connect', url, '--metrics', '0.0.0.0:9101'], /--metrics must be a loopback address, such as 127\.0\.0\.1:9101, not 0\.0\.0\.0:9101: nothing guards/],
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
