import { generateKeyPairSync } from 'node:crypto'
import type { Test } from 'tap'
import { Namespace } from './namespace.ts'
import type { Program } from './program.ts'

/** Where every host's WireGuard has its UDP port. */
export const WIREGUARD_PORT = 51820

/** Where the sidecar of every host listens, and so where all its WireGuard peers seem to be. */
export const SIDECAR_PORT = 51821

/** What a host's configuration says of a peer, right or wrong. */
export type ConfiguredPeer = Pick<WireGuardHost, 'publicKey' | 'address'>

/**
 * A host in a namespace of its own with a WireGuard interface, run by wireguard-go. It reaches the relay's
 * namespace over a link that nobody else is on, and no other host.
 */
export class WireGuardHost {
  readonly name: string
  readonly namespace: Namespace
  /** Its address inside the WireGuard network. */
  readonly address: string
  /** Its address on the link to the relay, and the relay's on the same link. */
  readonly linkAddress: string
  readonly relayAddress: string
  readonly publicKey: string
  readonly #privateKey: string
  #wireguard: Program | undefined

  private constructor (name: string, namespace: Namespace, number: number) {
    this.name = name
    this.namespace = namespace
    this.address = `10.99.0.${number}`
    this.linkAddress = `10.98.${number}.2`
    this.relayAddress = `10.98.${number}.1`
    const key = generateKeyPairSync('x25519').privateKey.export({ format: 'jwk' })
    this.#privateKey = Buffer.from(key.d!, 'base64url').toString('base64')
    this.publicKey = Buffer.from(key.x!, 'base64url').toString('base64')
  }

  /** `number` is the last part of its address, from 1 to 254, and different for each host of a test. */
  static async create (name: string, number: number, relay: Namespace): Promise<WireGuardHost> {
    const host = new WireGuardHost(name, await Namespace.create(name), number)
    const { namespace } = host
    await namespace.link('uplink', `${host.linkAddress}/30`, relay, `host${number}`, `${host.relayAddress}/30`)
    const wireguard = namespace.start('wireguard-go', ['--foreground', 'wg0'], { env: { LOG_LEVEL: 'verbose' } })
    host.#wireguard = wireguard
    await wireguard.line((line) => line.includes('UAPI listener started'), 10_000)
    await namespace.run('ip', ['address', 'add', `${host.address}/24`, 'dev', 'wg0'])
    await namespace.run('ip', ['link', 'set', 'wg0', 'up'])
    return host
  }

  /** Forgets all peers and sessions, and takes these peers. */
  async setPeers (peers: ConfiguredPeer[]): Promise<void> {
    const config = [
      '[Interface]', `PrivateKey = ${this.#privateKey}`, `ListenPort = ${WIREGUARD_PORT}`,
      ...peers.flatMap((peer) => [
        '[Peer]', `PublicKey = ${peer.publicKey}`, `AllowedIPs = ${peer.address}/32`, `Endpoint = 127.0.0.1:${SIDECAR_PORT}`
      ])
    ]
    // Behind a pipe, since Node's stdin for a child is a socket, which cannot be opened by its name.
    await this.namespace.run('sh', ['-c', 'cat | wg setconf wg0 /dev/stdin'], { input: config.join('\n') + '\n' })
  }

  /** Ends its WireGuard, for good. */
  async stopWireGuard (): Promise<void> {
    await this.#wireguard!.stop()
  }

  /** How many handshake initiations its WireGuard has taken as meant for it. */
  get receivedInitiations (): number {
    return this.#wireguard!.lines.filter((line) => line.includes('Received handshake initiation')).length
  }

  /** When the last handshake with a peer was, in seconds since 1970; 0 for never. */
  async latestHandshake (peer: WireGuardHost): Promise<number> {
    const shown = await this.namespace.run('wg', ['show', 'wg0', 'latest-handshakes'])
    const line = shown.split('\n').find((line) => line.startsWith(peer.publicKey))
    if (line === undefined) throw new Error(`${peer.name} is no peer of ${this.name}`)
    return Number(line.split('\t')[1])
  }

  /** Pings five times a second until the test ends. */
  startPing (t: Test, to: WireGuardHost): Ping {
    const program = this.namespace.start('ping', ['-n', '-i', '0.2', to.address])
    t.teardown(() => program.stop())
    return new Ping(program)
  }

  /** The number of answers to `count` pings; none within `wait` seconds at the end of the run is none. */
  async ping (to: ConfiguredPeer, count = 5, wait = 6): Promise<number> {
    // A ping that got no answer fails, but it prints the same summary: the exit code tells nothing more.
    const program = this.namespace.start('ping', ['-n', '-q', '-i', '0.2', '-c', String(count), '-W', String(wait), to.address])
    const summary = await program.line((line) => line.includes('packets transmitted'), 1000 * (count + wait) + 5000)
    return Number(/(\d+) received/.exec(summary)![1])
  }
}

/** A ping that goes on. */
export class Ping {
  readonly program: Program

  constructor (program: Program) {
    this.program = program
  }

  /** Waits for `count` answers from now on; the milliseconds it took. */
  async answers (count: number, timeout: number): Promise<number> {
    const since = performance.now()
    const from = this.program.lines.length
    let seen = 0
    for (let at = from; seen < count; at++) {
      await this.program.line(() => true, Math.max(1, since + timeout - performance.now()), at)
      if (this.program.lines[at]!.includes('bytes from')) seen++
    }
    return performance.now() - since
  }
}
