import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { PeerInfo } from '../../lib/index.ts'
import { makeCertificates } from './certificates.ts'
import { Namespace } from './namespace.ts'
import type { Program } from './program.ts'
import { SIDECAR_PORT, WIREGUARD_PORT, WireGuardHost } from './wireguard-host.ts'

const RELAY_PORT = 8080
const RELAY = fileURLToPath(new URL('../e2e/relay-server.js', import.meta.url))
const SPANZA = fileURLToPath(new URL('../../dist/cli/spanza.js', import.meta.url))

/** What `identify` returns for a device. */
export interface Device {
  id?: string
  channel?: string
  publicKey?: string
}

/** What the relay's route for statistics answers. */
export interface Statistics {
  stats: {
    initiations: { unicast: number, fannedOut: number, unmatched: number }
    drops: Record<string, number>
  }
  peers: Array<{ id: string, framing: string, datagramsOut: number } & Pick<PeerInfo, 'dropsByReason' | 'handshakes' | 'handshakeFaults' | 'lastHandshake'>>
}

/**
 * Hosts that can reach the relay's namespace and nothing else. The relay is a process there, and beside each
 * WireGuard interface runs a sidecar.
 */
export class RelayNetwork {
  readonly hosts: WireGuardHost[] = []
  readonly #namespace: Namespace
  readonly #directory: string
  #certificates: { ca: string, key: string, cert: string } | undefined

  private constructor (namespace: Namespace, directory: string) {
    this.#namespace = namespace
    this.#directory = directory
  }

  /** Closed with the test. */
  static async create (t: Test, names: string[]): Promise<RelayNetwork> {
    const directory = mkdtempSync(join(tmpdir(), 'spanza-test-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const network = new RelayNetwork(await Namespace.create('relay'), directory)
    t.teardown(() => network.#namespace.close())
    await Promise.all(names.map(async (name, index) => {
      const host = await WireGuardHost.create(name, index + 1, network.#namespace)
      t.teardown(() => host.namespace.close())
      network.hosts[index] = host
      writeFileSync(network.#tokenFile(host), `token-${name}\n`)
    }))
    return network
  }

  /** Starts the relay, for a test: it is stopped with it. Each host is what `identify` says of it. */
  async startRelay (t: Test, identify: (host: WireGuardHost) => Device, { https = false } = {}): Promise<Relay> {
    const config = {
      port: RELAY_PORT,
      devices: Object.fromEntries(this.hosts.map((host) => [`token-${host.name}`, identify(host)])),
      ...(https && { https: this.#https() })
    }
    const file = join(this.#directory, 'relay.json')
    writeFileSync(file, JSON.stringify(config))
    const relay = new Relay(this.#namespace, file, https ? this.#certificates!.ca : undefined)
    t.teardown(() => relay.stop())
    await relay.start()
    return relay
  }

  /** Starts the sidecar of a host, for a test, and waits until it is connected. */
  async connect (t: Test, host: WireGuardHost, relay: Relay, options: { framing?: 'wg' | 'len16', forward?: boolean } = {}): Promise<Sidecar> {
    const args = [
      SPANZA, 'connect', `${relay.scheme}://${host.relayAddress}:${RELAY_PORT}/relay`, '--json',
      '--listen', `127.0.0.1:${SIDECAR_PORT}`, '--token-file', this.#tokenFile(host)
    ]
    if (options.forward !== false) args.push('--forward', `127.0.0.1:${WIREGUARD_PORT}`)
    if (options.framing !== undefined) args.push('--framing', options.framing)
    if (relay.ca !== undefined) args.push('--ca', relay.ca)
    const sidecar = new Sidecar(host.namespace, args)
    t.teardown(() => sidecar.program.stop())
    await sidecar.event('connect', 20_000)
    return sidecar
  }

  #tokenFile (host: WireGuardHost): string {
    return join(this.#directory, `${host.name}.token`)
  }

  #https (): { key: string, cert: string } {
    this.#certificates = makeCertificates(this.#directory, ['127.0.0.1', ...this.hosts.map((host) => host.relayAddress)])
    const { key, cert } = this.#certificates
    return { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
  }
}

/** The relay's process, which can be started again. */
export class Relay {
  readonly ca: string | undefined
  readonly scheme: 'http' | 'https'
  readonly #namespace: Namespace
  readonly #config: string
  #program: Program | undefined

  constructor (namespace: Namespace, config: string, ca: string | undefined) {
    this.#namespace = namespace
    this.#config = config
    this.ca = ca
    this.scheme = ca === undefined ? 'http' : 'https'
  }

  async start (): Promise<void> {
    this.#program = this.#namespace.start(process.execPath, [RELAY, this.#config])
    await this.#program.line((line) => line === 'listening', 20_000)
  }

  async stop (signal?: NodeJS.Signals): Promise<void> {
    await this.#program?.stop(signal)
  }

  /** The lines of its log. */
  get log (): Array<Record<string, unknown>> {
    return this.#program!.errors.trim().split('\n').map((line) => JSON.parse(line))
  }

  /** Asks the relay as any client of its app would; by a program, since only those can be in a namespace. */
  async statistics (): Promise<Statistics> {
    const url = `${this.scheme}://127.0.0.1:${RELAY_PORT}/stats`
    const code = `fetch(${JSON.stringify(url)}).then((answer) => answer.text()).then(console.log)`
    const env = this.ca === undefined ? {} : { NODE_EXTRA_CA_CERTS: this.ca }
    return JSON.parse(await this.#namespace.run(process.execPath, ['-e', code], { env }))
  }
}

/** The command `spanza connect` beside a WireGuard interface. */
export class Sidecar {
  readonly program: Program

  constructor (namespace: Namespace, args: string[]) {
    this.program = namespace.start(process.execPath, args)
  }

  /** How many events it has told up to now. */
  get told (): number {
    return this.program.lines.length
  }

  /** The first such event, of those behind the first `from`. */
  async event (name: string, timeout: number, from = 0): Promise<Record<string, unknown>> {
    return JSON.parse(await this.program.line((line) => JSON.parse(line).event === name, timeout, from))
  }
}
