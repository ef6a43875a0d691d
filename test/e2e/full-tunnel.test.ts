import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { missingForNamespaces, Namespace } from '../helpers/namespace.ts'
import { DEADLINE, SPANZA } from '../helpers/spanza.ts'
import { SIDECAR_PORT, WireGuardHost } from '../helpers/wireguard-host.ts'

// A full tunnel, routed as wg-quick does it: all but WireGuard's own packets goes into wg0, the sidecar's connection too.

t.setTimeout(120_000)

const RELAY = fileURLToPath(new URL('relay-server.js', import.meta.url))
const RELAY_ADDRESS = '198.51.100.1'
const MARK = '51820'
const skip = missingForNamespaces(['wg', 'wireguard-go']) ?? false

/** A relay that is not on the link, and a host with a full tunnel. */
async function fullTunnel (t: Test): Promise<{ host: WireGuardHost, startSidecar: (...args: string[]) => ReturnType<Namespace['start']> }> {
  const relay = await Namespace.create('relay')
  t.teardown(() => relay.close())
  await relay.run('ip', ['address', 'add', `${RELAY_ADDRESS}/32`, 'dev', 'lo'])
  const host = await WireGuardHost.create('host', 1, relay)
  t.teardown(() => host.namespace.close())
  const other = await WireGuardHost.create('other', 2, relay)
  t.teardown(() => other.namespace.close())
  const { namespace } = host
  await host.setPeers([other])
  await namespace.run('ip', ['route', 'add', 'default', 'via', host.relayAddress, 'dev', 'uplink'])
  await namespace.run('wg', ['set', 'wg0', 'fwmark', MARK, 'peer', other.publicKey, 'allowed-ips', '0.0.0.0/0'])
  await namespace.run('ip', ['route', 'add', 'default', 'dev', 'wg0', 'table', MARK])
  await namespace.run('ip', ['rule', 'add', 'not', 'fwmark', MARK, 'table', MARK])
  await namespace.run('ip', ['rule', 'add', 'table', 'main', 'suppress_prefixlength', '0'])

  const directory = mkdtempSync(join(tmpdir(), 'spanza-full-tunnel-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const config = join(directory, 'relay.json')
  writeFileSync(config, JSON.stringify({ port: 8080, devices: { token: { id: 'host', channel: 'home' } } }))
  await relay.start(process.execPath, [RELAY, config]).line((line) => line === 'listening', DEADLINE)

  return {
    host,
    startSidecar: (...args) => namespace.start(process.execPath, [
      SPANZA, 'connect', `http://${RELAY_ADDRESS}:8080/relay`, '--listen', `127.0.0.1:${SIDECAR_PORT}`, ...args
    ], { env: { SPANZA_TOKEN: 'token', NO_PROXY: '*' } })
  }
}

const connected = (line: string): boolean => line.startsWith('Connected')

t.test('without more, the connection loops, and the sidecar says so', { skip }, async (t) => {
  const { startSidecar } = await fullTunnel(t)
  const program = startSidecar()
  const text = await program.line((line) => line.startsWith('The route to the relay'), DEADLINE)
  t.match(text, /^The route to the relay leads into wg0 \(10\.99\.0\.1\), a WireGuard interface\. If that is the tunnel which this sidecar carries, it loops: /)
  t.notOk(program.lines.some(connected))
})

t.test('with a rule for the sidecar’s user it connects', { skip }, async (t) => {
  const { host, startSidecar } = await fullTunnel(t)
  await host.namespace.run('ip', ['rule', 'add', 'uidrange', '0-0', 'table', 'main', 'priority', '100'])
  t.match(await host.namespace.run('ip', ['route', 'get', RELAY_ADDRESS, 'uid', '1000']), / dev wg0 /, 'others go into the tunnel')
  const program = startSidecar()
  await program.line(connected, DEADLINE)
  await program.stop()
  t.notMatch(program.output, 'The route to the relay')
})

t.test('with --local-address and a rule for it, it connects', { skip }, async (t) => {
  const { host, startSidecar } = await fullTunnel(t)
  await host.namespace.run('ip', ['rule', 'add', 'from', host.linkAddress, 'table', 'main', 'priority', '100'])
  t.match(await host.namespace.run('ip', ['route', 'get', RELAY_ADDRESS]), / dev wg0 /, 'others go into the tunnel')
  const program = startSidecar('--local-address', host.linkAddress)
  await program.line(connected, DEADLINE)
  await program.stop()
  t.notMatch(program.output, 'The route to the relay')
})
