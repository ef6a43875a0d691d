import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { makeCertificates } from '../helpers/certificates.ts'
import { missingForNamespaces, Namespace } from '../helpers/namespace.ts'
import { Sidecar } from '../helpers/relay-network.ts'
import { SIDECAR_PORT, WIREGUARD_PORT, WireGuardHost } from '../helpers/wireguard-host.ts'
import { figure, missingPrograms } from './interop.ts'

// Real WireGuard on two hosts that reach nothing but the relay. One has ProxyGuard's client beside it; the other is the
// `udp:` target of a route, or a peer of the hub with our sidecar. ProxyGuard sends no header of its user's, so the secret
// is in the path.

const MEBIBYTE = 1 << 20
const RELAY_PORT = 8080
const RELAY = path('relay-server.js')
const SPANZA = path('../../dist/cli/spanza.js')

const command = ['python3', path('proxyguard-client.py'), '--listen-port', String(SIDECAR_PORT), '--forward-port', String(WIREGUARD_PORT)]
const missing = missingPrograms('wireguard-go', 'eduvpn-common') || missingForNamespaces(['wireguard-go', 'wg', 'iperf3', 'openssl'])

for (const scheme of ['http', 'https']) {
  t.test(`ProxyGuard over ${scheme}`, { skip: missing || false }, async (t) => {
    const directory = t.testdir({})
    const namespace = await Namespace.create('relay')
    t.teardown(() => namespace.close())
    const [guarded, other] = await Promise.all([createHost(t, namespace, 'guarded', 1), createHost(t, namespace, 'other', 2)])
    const { ca, key, cert } = makeCertificates(directory, [guarded.relayAddress, other.relayAddress])
    const file = join(directory, 'relay.json')
    writeFileSync(file, JSON.stringify({
      port: RELAY_PORT,
      host: '0.0.0.0',
      ...(scheme === 'https' && { https: { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') } }),
      routes: [
        { path: '/target/a-long-random-secret', target: `udp://${other.linkAddress}:${WIREGUARD_PORT}` },
        { path: '/hub/a-long-random-secret' }
      ]
    }))
    const relay = namespace.start(process.execPath, [RELAY, file])
    await relay.line((line) => line === 'listening', 20_000)

    t.beforeEach(() => Promise.all([guarded.setPeers([other]), other.setPeers([guarded])]))

    t.test('to a WireGuard server that is the target', async (t) => {
      startClient(t, 'target')
      await reach(t, 'to a udp: target')
    })

    t.test('to a peer of the hub', async (t) => {
      const sidecar = new Sidecar(other.namespace, [
        SPANZA, 'connect', `${scheme}://${other.relayAddress}:${RELAY_PORT}/hub/a-long-random-secret`, '--json',
        '--listen', `127.0.0.1:${SIDECAR_PORT}`, '--forward', `127.0.0.1:${WIREGUARD_PORT}`,
        ...(scheme === 'https' ? ['--ca', ca] : [])
      ])
      t.teardown(() => sidecar.program.stop())
      await sidecar.event('connect', 20_000)
      startClient(t, 'hub')
      await reach(t, 'to a peer of the hub')
    })

    function startClient (t: Test, route: string): void {
      const [program, ...args] = command as [string, ...string[]]
      const client = guarded.namespace.start(program, [
        ...args, '--to', `${scheme}://${guarded.relayAddress}:${RELAY_PORT}/${route}/a-long-random-secret`
      ], { env: { SSL_CERT_FILE: ca, NODE_EXTRA_CA_CERTS: ca } })
      t.teardown(() => client.stop())
    }

    /** From one host to the other through WireGuard. */
    async function reach (t: Test, where: string): Promise<void> {
      const transport = `UoTLV/1${scheme === 'https' ? ' over TLS' : ''} ${where}`
      for (const [direction, flags] of [['from', []], ['to', ['--reverse']]] as const) {
        const server = other.namespace.start('iperf3', ['--server', '--one-off', '--forceflush'])
        await server.line((line) => line.includes('Server listening'), 5000)
        // If the client is not connected when WireGuard tries first, that tries again after 5 s. Of what was sent, iperf3
        // does not count what has not yet arrived at the end.
        const { end } = JSON.parse(await guarded.namespace.run('iperf3', [
          '--client', other.address, '--bytes', '106M', '--window', '1M', '--json', ...flags
        ], { timeout: 100_000 }))
        await server.end(10_000)
        t.comment(`${end.sum_sent.retransmits} retransmits`)
        t.ok(end.sum_received.bytes >= 100 * MEBIBYTE, `100 MiB ${direction} the client`, end)
        const { bytes, seconds } = end.sum_received
        figure(t, 'eduvpn-common', transport, `100 MiB ${direction} the client: ${seconds.toFixed(1)} s (${Math.round(bytes / 1e6 / seconds)} MB/s)`)
      }
    }
  })
}

async function createHost (t: Test, relay: Namespace, name: string, number: number): Promise<WireGuardHost> {
  const host = await WireGuardHost.create(name, number, relay)
  t.teardown(() => host.namespace.close())
  return host
}

function path (name: string): string {
  return fileURLToPath(new URL(name, import.meta.url))
}
