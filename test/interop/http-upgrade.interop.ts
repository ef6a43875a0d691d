import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { freePort } from '../helpers/ports.ts'
import { Program } from '../helpers/program.ts'
import { figure, megabytesPerSecond, missingPrograms } from './interop.ts'
import { checksum, Origin } from './origin.ts'

// HTTP through a client that has VLESS over HTTPUpgrade, a relay route with a `tcp:` target, and a VLESS server there that
// knows nothing of HTTPUpgrade.

const MEBIBYTES = 100
const CONNECTIONS = 50
const TOKEN = 'a-long-random-token'
const USER = '2d1f2c1e-7a55-4ec1-bb6c-4cbf2f1b9d6a'
const CA = fixture('ca.pem')

interface Client { httpPort: number, relayPort: number, path: string, headers: Record<string, string>, isTls: boolean }

interface Proxy {
  name: string
  args: (config: string) => string[]
  /** In the line that it prints when it can be used. */
  ready: string
  client: (client: Client) => object
  server: (port: number) => object
}

const xray: Proxy = {
  name: 'xray',
  args: (config) => ['run', '-config', config],
  ready: ' started',
  client: ({ httpPort, relayPort, path, headers, isTls }) => ({
    log: { loglevel: 'warning' },
    inbounds: [{ listen: '127.0.0.1', port: httpPort, protocol: 'http' }],
    outbounds: [{
      protocol: 'vless',
      settings: { vnext: [{ address: '127.0.0.1', port: relayPort, users: [{ id: USER, encryption: 'none' }] }] },
      streamSettings: {
        network: 'httpupgrade',
        httpupgradeSettings: { path, host: 'relay.example.com', headers },
        ...(isTls && {
          security: 'tls',
          tlsSettings: {
            serverName: 'relay.example.com', disableSystemRoot: true, certificates: [{ usage: 'verify', certificateFile: CA }]
          }
        })
      }
    }]
  }),
  server: (port) => ({
    log: { loglevel: 'warning' },
    inbounds: [{ listen: '127.0.0.1', port, protocol: 'vless', settings: { clients: [{ id: USER }], decryption: 'none' } }],
    outbounds: [{ protocol: 'freedom' }]
  })
}

const singBox: Proxy = {
  name: 'sing-box',
  args: (config) => ['run', '--config', config],
  ready: 'sing-box started',
  client: ({ httpPort, relayPort, path, headers, isTls }) => ({
    log: { level: 'info', output: 'stdout' },
    inbounds: [{ type: 'http', listen: '127.0.0.1', listen_port: httpPort }],
    outbounds: [{
      type: 'vless',
      server: '127.0.0.1',
      server_port: relayPort,
      uuid: USER,
      transport: { type: 'httpupgrade', path, host: 'relay.example.com', headers },
      ...(isTls && { tls: { enabled: true, server_name: 'relay.example.com', certificate_path: CA } })
    }]
  }),
  server: (port) => ({
    log: { level: 'info', output: 'stdout' },
    inbounds: [{ type: 'vless', listen: '127.0.0.1', listen_port: port, users: [{ uuid: USER }] }],
    outbounds: [{ type: 'direct' }]
  })
}

/** What versions of Xray after 26.3.27 send of their own accord; the Go module proxy has none of those. */
const webSocketHeaders = { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version': '13' }

const cases = [
  { proxy: xray, isTls: false, path: '/relay' },
  { proxy: xray, isTls: false, path: '/relay?ed=2560' },
  { proxy: xray, isTls: true, path: '/relay' },
  { proxy: xray, isTls: true, path: '/relay?ed=2560' },
  { proxy: xray, isTls: false, path: '/relay', hasKey: true },
  { proxy: xray, isTls: true, path: '/relay?ed=2560', hasKey: true },
  { proxy: singBox, isTls: false, path: '/relay' },
  { proxy: singBox, isTls: true, path: '/relay' }
]

for (const { proxy, isTls, path, hasKey = false } of cases) {
  const transport = `HTTPUpgrade${isTls ? ' over TLS' : ''}${path.includes('?ed') ? ', early data' : ''}${hasKey ? ', with a Sec-WebSocket-Key' : ''}`
  t.test(`${proxy.name}: ${transport}`, { skip: missingPrograms(proxy.name) }, async (t) => {
    const origin = await Origin.listen(t)
    const directory = t.testdir({})
    const target = await freePort()
    await startProxy(t, 'server', proxy.server(target))
    const relay = await startRelay(t, directory, { target: `tcp://127.0.0.1:${target}`, webSockets: !hasKey }, isTls)
    const httpPort = await startClient(t, TOKEN)

    t.test(`${MEBIBYTES} MiB arrive in both directions`, async (t) => {
      const expected = await checksum(MEBIBYTES)
      for (const direction of ['download', 'upload'] as const) {
        const since = performance.now()
        t.equal(await origin[direction](httpPort, MEBIBYTES), expected, direction)
        figure(t, proxy.name, transport, `${direction} of ${MEBIBYTES} MiB: ${megabytesPerSecond(MEBIBYTES << 20, since)}`)
      }
    })

    t.test(`${CONNECTIONS} connections at once, each a tunnel of its own`, async (t) => {
      await relay.isEmpty() // Xray closes some seconds later
      const since = performance.now()
      const checksums = await origin.together(httpPort, CONNECTIONS, 2, async () => {
        t.equal((await relay.peers()).length, CONNECTIONS)
      })
      t.same(checksums, Array(CONNECTIONS).fill(await checksum(2)))
      figure(t, proxy.name, transport, `${CONNECTIONS} connections at once, 2 MiB each: ${megabytesPerSecond(CONNECTIONS << 21, since)}`)
    })

    t.test('with a token that the route does not know, nothing comes', async (t) => {
      await t.rejects(origin.download(await startClient(t, 'wrong'), 1))
    })

    t.test('when all is done, no tunnel is left', () => relay.isEmpty())

    async function startClient (t: Test, token: string): Promise<number> {
      const httpPort = await freePort()
      await startProxy(t, `client-${token}`, proxy.client({ httpPort, relayPort: relay.port, path, headers: { Authorization: `Bearer ${token}`, ...(hasKey && webSocketHeaders) }, isTls }))
      return httpPort
    }

    async function startProxy (t: Test, name: string, config: object): Promise<void> {
      const file = join(directory, `${name}.json`)
      writeFileSync(file, JSON.stringify(config))
      const program = new Program(proxy.name, proxy.args(file), { name: `${proxy.name} ${name}` })
      t.teardown(() => program.stop())
      await program.line((line) => line.includes(proxy.ready), 20_000)
    }
  })
}

async function startRelay (t: Test, directory: string, route: object, isTls: boolean) {
  const port = await freePort()
  const file = join(directory, 'relay.json')
  writeFileSync(file, JSON.stringify({
    port,
    ...(isTls && { https: { key: readFileSync(fixture('server-key.pem'), 'utf8'), cert: readFileSync(fixture('server.pem'), 'utf8') } }),
    // Each connection that somebody makes through such a client is a tunnel.
    options: { clientHandshakesPerSecond: 100, maxClientUnfinishedHandshakes: 100 },
    routes: [{ path: '/relay', token: TOKEN, ...route }]
  }))
  const program = new Program(process.execPath, [fixture('../interop/relay-server.js'), file], {
    name: 'relay', env: { NODE_EXTRA_CA_CERTS: CA }
  })
  t.teardown(() => program.stop())
  await program.line((line) => line === 'listening', 20_000)

  async function peers (): Promise<unknown[]> {
    // Another program asks, which can be told of the authority.
    const code = `fetch('${isTls ? 'https' : 'http'}://localhost:${port}/stats').then((answer) => answer.text()).then(console.log)`
    const fetching = new Program(process.execPath, ['-e', code], { env: { NODE_EXTRA_CA_CERTS: CA } })
    return JSON.parse(await fetching.line(() => true, 10_000)).peers
  }

  return {
    port,
    peers,
    async isEmpty (): Promise<void> {
      while ((await peers()).length > 0);
    }
  }
}

function fixture (name: string): string {
  return fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
}
