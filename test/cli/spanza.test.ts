import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { closeReasons, type CloseReason } from '../../lib/tunnel/close-reasons.ts'
import { wg } from '../../lib/framing/wg.ts'
import { fakeRelay, refuse } from '../helpers/fake-relay.ts'
import { fakeHttp2Relay } from '../helpers/fake-http2-relay.ts'
import { startRelay } from '../helpers/relay.ts'
import { DEADLINE, errorsOf, listen, spanza } from '../helpers/spanza.ts'
import { udpPeer } from '../helpers/udp-peer.ts'

t.test('carries datagrams, reports in text, connects again, and ends at once at SIGTERM and SIGINT', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    t.test(signal, async (t) => {
      const relay = await fakeRelay(t)
      const program = spanza(t, ['connect', relay.url, ...listen])
      const listening = await program.line((line) => line.startsWith('Listening'), DEADLINE)
      const [, port] = /^Listening on 127\.0\.0\.1:(\d+) \(UDP\), connecting to http:/.exec(listening)!
      await program.line((line) => line === `Connected to ${relay.url} (framing wg)`, DEADLINE)
      const first = await relay.tunnels.next()
      const peer = (await udpPeer(t)).to({ address: '127.0.0.1', port: Number(port), family: 'IPv4' })
      await peer.send('hello')
      t.equal(String(await first.datagrams.next()), 'hello')
      first.send(Buffer.from('back'))
      t.equal(String(await peer.received.next()), 'back')

      first.socket.end(wg.closing(closeReasons.shutdown.code, 'update')!)
      await program.line((line) => /^Connection lost: the relay is shutting down \(update\); next attempt in 0\.\d s$/.test(line), DEADLINE)
      const second = await relay.tunnels.next()
      await program.line((line) => line.startsWith('Connected'), DEADLINE, 3)

      const begin = performance.now()
      program.child.kill(signal)
      await second.ended
      t.equal(await program.end(DEADLINE), 0)
      t.ok(performance.now() - begin < 2000)
      t.equal(program.lines.length, 4)
      t.equal(errorsOf(program).trim(), '')
    })
  }
})

t.test('--protocol websocket carries datagrams in a WebSocket, or with --keyless behind a WebSocket’s request', async (t) => {
  const app = await startRelay(t)
  const { port } = app.server.address() as AddressInfo
  const url = `ws://127.0.0.1:${port}/relay/home`
  for (const [flags, framing] of [[['--keyless'], 'wg'], [[], 'websocket']] as const) {
    const program = spanza(t, ['connect', url, ...listen, '--protocol', 'websocket', ...flags])
    t.equal(await program.line((line) => line.startsWith('Connected'), DEADLINE), `Connected to ${url} (framing ${framing})`)
    t.match(app.relayHub.peers(), [{ protocol: 'websocket' }])
    if (framing === 'wg') t.match(app.relayHub.peers(), [{ framing }])
    program.child.kill('SIGTERM')
    t.equal(await program.end(DEADLINE), 0)
  }
})

t.test('says at once that datagrams are too large, and how to mend that', async (t) => {
  const relay = await fakeRelay(t, { maxPacket: 1500 })
  const program = spanza(t, ['connect', relay.url, ...listen])
  const listening = await program.line((line) => line.startsWith('Listening'), DEADLINE)
  await program.line((line) => line.startsWith('Connected'), DEADLINE)
  const port = Number(/:(\d+) \(UDP\)/.exec(listening)![1])
  const peer = (await udpPeer(t)).to({ address: '127.0.0.1', port, family: 'IPv4' })
  const tunnel = await relay.tunnels.next()
  for (const size of [1501, 1502, 1500]) await peer.send(Buffer.alloc(size))
  t.equal((await tunnel.datagrams.next()).length, 1500)
  const line = await program.line((line) => line.startsWith('Dropped'), DEADLINE)
  t.equal(line, "Dropped a datagram of 1501 bytes, and will drop all like it: the relay takes at most 1500; set MTU = 1380 in WireGuard's [Interface]")
  t.equal(program.lines.filter((line) => line.startsWith('Dropped')).length, 1)
})

t.test('a 401 without a token says how to give one', async (t) => {
  const relay = await fakeRelay(t, { answers: [refuse('401 Unauthorized', { message: 'unknown token' }), refuse('401 Unauthorized', { message: 'unknown token' })] })
  const without = spanza(t, ['connect', relay.url, ...listen])
  t.equal(await without.end(DEADLINE), 3)
  t.match(errorsOf(without), 'The relay answered 401: unknown token; no token was given: set SPANZA_TOKEN or --token-file\n')
  const wrong = spanza(t, ['connect', relay.url, ...listen], { SPANZA_TOKEN: 'wrong' })
  t.equal(await wrong.end(DEADLINE), 3)
  t.notMatch(errorsOf(wrong), /no token/)
})

t.test('--http2 carries datagrams over HTTP/2, and keeps the process no longer than it takes', async (t) => {
  const relay = await fakeHttp2Relay(t)
  const program = spanza(t, ['connect', relay.url, ...listen, '--http2'])
  await program.line((line) => line.startsWith('Connected'), DEADLINE)
  t.match((await relay.requests.next()).headers, { ':method': 'CONNECT', ':protocol': 'spanza' })
  program.child.kill('SIGTERM')
  t.equal(await program.end(DEADLINE), 0)

  const without = await fakeHttp2Relay(t, { server: { settings: {} } })
  const refused = spanza(t, ['connect', without.url, ...listen, '--http2'])
  // It may be something in between that has none.
  await refused.line((line) => /^The server takes no tunnels over HTTP\/2: its SETTINGS.*; next attempt in/.test(line), DEADLINE)
})

t.test('ends at a signal also while it tries to connect', async (t) => {
  const relay = await fakeRelay(t, { answers: [() => {}] })
  const program = spanza(t, ['connect', relay.url, ...listen])
  await relay.requests.next()
  program.child.kill('SIGTERM')
  t.equal(await program.end(DEADLINE), 0)
})

t.test('--json: an object for each event', async (t) => {
  const relay = await fakeRelay(t, { answers: [refuse('503 Full', { code: 'FST_RELAY_HUB_FULL', message: 'full' })] })
  const program = spanza(t, ['connect', relay.url, ...listen, '--json'])
  const tunnel = await relay.tunnels.next()
  tunnel.socket.write(wg.drain(60_000)!)
  await program.line((line) => line.includes('"drain"'), DEADLINE)
  tunnel.socket.end(wg.closing(closeReasons.replaced.code, 'elsewhere')!)
  t.equal(await program.end(DEADLINE), 4)
  const events = program.lines.map((line) => JSON.parse(line))
  t.ok(events.every(({ time }) => Math.abs(Date.parse(time) - Date.now()) < 60_000))
  t.match(events, [
    { event: 'listening', address: '127.0.0.1', port: Number },
    { event: 'retry', text: 'The relay answered 503: FST_RELAY_HUB_FULL, full', code: 'FST_RELAY_REFUSED', statusCode: 503, relayCode: 'FST_RELAY_HUB_FULL', retryIn: Number },
    { event: 'connect', framing: 'wg', url: relay.url },
    { event: 'drain', afterMs: 60_000 },
    { event: 'stop', reason: 'replaced', text: 'elsewhere' }
  ])
  t.equal(events.length, 5)
})

t.test('the exit code tells why it ended', async (t) => {
  t.test('3: refused for good', async (t) => {
    const relay = await fakeRelay(t, { answers: [refuse('401 Unauthorized', { code: 'NO', message: 'who are you?' })] })
    const program = spanza(t, ['connect', relay.url, ...listen], { SPANZA_TOKEN: 'unknown' })
    t.equal(await program.end(DEADLINE), 3)
    t.match(errorsOf(program), 'spanza: The relay answered 401: NO, who are you?\n')
  })

  const final: Array<[CloseReason, number, RegExp]> = [
    ['replaced', 4, /closed for good: another device with the same identity took the place \(words\); give each device a token of its own, and run one sidecar for each token\n/],
    ['disconnected', 5, /closed for good: the relay’s operator ended it \(words\)\n/],
    ['unstamped', 5, /closed for good/]
  ]
  for (const [reason, exitCode, text] of final) {
    t.test(`${exitCode}: ${reason}`, async (t) => {
      const relay = await fakeRelay(t)
      const program = spanza(t, ['connect', relay.url, ...listen])
      const tunnel = await relay.tunnels.next()
      tunnel.socket.end(wg.closing(closeReasons[reason].code, 'words')!)
      t.equal(await program.end(DEADLINE), exitCode)
      t.match(errorsOf(program), text)
    })
  }

  t.test('1: a local port that is taken', async (t) => {
    const peer = await udpPeer(t)
    const program = spanza(t, ['connect', 'http://127.0.0.1:1/', '--listen', peer.address])
    t.equal(await program.end(DEADLINE), 1)
    t.equal(errorsOf(program).trim(), `spanza: --listen ${peer.address}: the port is taken, perhaps by another sidecar, or by WireGuard as its ListenPort: ` +
      `stop that, or choose another port here and in WireGuard's Endpoint (bind EADDRINUSE ${peer.address})`)
  })

  t.test('2: a command line that cannot be used', async (t) => {
    const url = 'https://127.0.0.1:1/'
    const cases: Array<[string[], RegExp]> = [
      [[], /a command is missing/],
      [['connect', url, '--token', 's3cret'], /use --token-file/],
      [['connect', 'wss://127.0.0.1/'], /option url must be an http: or https: URL/],
      [['connect', url, '--listen', '0.0.0.0:1'], /option forward must be given/],
      [['connect', url, '--framing', 'raw'], /option framings/]
    ]
    for (const [args, message] of cases) {
      const program = spanza(t, args)
      t.equal(await program.end(DEADLINE), 2)
      t.match(errorsOf(program), message)
      t.match(errorsOf(program), /see spanza --help/)
      t.notMatch(program.output, /s3cret/)
      t.same(program.lines, [])
    }
  })
})

t.test('--retry-replaced connects again', async (t) => {
  const relay = await fakeRelay(t)
  spanza(t, ['connect', relay.url, ...listen, '--retry-replaced'])
  const tunnel = await relay.tunnels.next()
  tunnel.socket.end(wg.closing(closeReasons.replaced.code, '')!)
  await relay.tunnels.next()
})

t.test('shows the token of --token-file, or of the environment', async (t) => {
  const relay = await fakeRelay(t)
  const file = join(t.testdir({ token: 'from-file\n' }), 'token')
  spanza(t, ['connect', relay.url, ...listen, '--token-file', file])
  t.equal((await relay.requests.next()).headers.authorization, 'Bearer from-file')
  spanza(t, ['connect', relay.url, ...listen], { SPANZA_TOKEN: 'from-environment' })
  t.equal((await relay.requests.next()).headers.authorization, 'Bearer from-environment')
})

t.test('--ca, --cert and --key', async (t) => {
  const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
  const tls = { cert: readFileSync(fixture('server.pem')), key: readFileSync(fixture('server-key.pem')), ca: readFileSync(fixture('ca.pem')) }
  const relay = await fakeRelay(t, { tls: { ...tls, requestCert: true, rejectUnauthorized: true } })
  const certificates = ['--ca', fixture('ca.pem'), '--cert', fixture('client.pem'), '--key', fixture('client-key.pem')]
  const program = spanza(t, ['connect', relay.url, ...listen, ...certificates])
  await program.line((line) => line.startsWith('Connected'), DEADLINE)
  const insecure = spanza(t, ['connect', relay.url, ...listen, ...certificates.slice(2), '--insecure'])
  await insecure.line((line) => line.startsWith('Connected'), DEADLINE)
  t.match(errorsOf(insecure), /--insecure: the relay’s certificate is not checked/)
})

t.test('--help lists every flag and exit code, --version tells the version', async (t) => {
  const help = spanza(t, ['--help'])
  t.equal(await help.end(DEADLINE), 0)
  const text = help.lines.join('\n')
  for (const flag of ['listen', 'forward', 'token-file', 'header', 'framing', 'protocol', 'keyless', 'http2', 'host', 'servername', 'ca', 'cert', 'key', 'insecure', 'retry-replaced', 'metrics', 'json', 'version', 'help']) {
    t.match(text, new RegExp(`--${flag}\\b`))
  }
  for (let exitCode = 0; exitCode <= 5; exitCode++) t.match(text, new RegExp(`^ {2}${exitCode} {2}`, 'm'))
  const version = spanza(t, ['--version'])
  t.equal(await version.end(DEADLINE), 0)
  t.same(version.lines, [JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version])
})
