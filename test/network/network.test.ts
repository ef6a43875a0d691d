import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { missingForNamespaces, Namespace } from '../helpers/namespace.ts'
import type { Program } from '../helpers/program.ts'
import { SPANZA } from '../helpers/spanza.ts'

// A sidecar at default options on a host whose network changes: two links lead to the relay, at 10.97.0.1, and the test
// says which of them is used. With SPANZA_LONG=1 outages last as long as in the field: `npm run test:network`.

const long = process.env['SPANZA_LONG'] === '1'
const RELAY = fileURLToPath(new URL('relay.js', import.meta.url))
const TRAFFIC = fileURLToPath(new URL('traffic.js', import.meta.url))
const PORT = 8080
const UDP_PORT = 51821
/** How soon datagrams have to come back when the network is usable again, in milliseconds. */
const BACK_MS = 3000
/** As these machines are busy. */
const SLACK_MS = 500

t.setTimeout(long ? 600_000 : 100_000)

const sleep = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000))

const ip = (namespace: Namespace, command: string) => namespace.run('ip', command.split(' '))

class Setup {
  readonly t: Test
  readonly host: Namespace
  readonly far: Namespace
  readonly directory: string
  relay!: Program
  dns: Program | undefined
  sidecar!: Program
  traffic!: Program

  private constructor (t: Test, host: Namespace, far: Namespace, directory: string) {
    this.t = t
    this.host = host
    this.far = far
    this.directory = directory
  }

  static async create (t: Test, url = `http://10.97.0.1:${PORT}/echo`): Promise<Setup> {
    const directory = mkdtempSync(join(tmpdir(), 'spanza-network-'))
    t.teardown(() => rmSync(directory, { recursive: true }))
    const [host, far] = await Promise.all([Namespace.create('host'), Namespace.create('relay')])
    t.teardown(() => Promise.all([host.close(), far.close()]))
    await host.link('up1', '10.98.1.2/30', far, 'down1', '10.98.1.1/30')
    await host.link('up2', '10.98.2.2/30', far, 'down2', '10.98.2.1/30')
    await ip(far, 'address add 10.97.0.1/32 dev lo')
    await ip(host, 'address del 10.98.2.2/30 dev up2')
    await ip(host, 'route add 10.97.0.1 via 10.98.1.1')
    const setup = new Setup(t, host, far, directory)
    await setup.startRelay()
    if (!url.includes('10.97')) await setup.startResolver()
    setup.sidecar = host.start(process.execPath, [SPANZA, 'connect', url, '--json', '--listen', `127.0.0.1:${UDP_PORT}`])
    await setup.sidecar.line((line) => JSON.parse(line).event === 'connect', 60_000)
    setup.traffic = host.start(process.execPath, [TRAFFIC, String(UDP_PORT)])
    await setup.answer(10_000)
    return setup
  }

  async startRelay (): Promise<void> {
    this.relay = this.far.start(process.execPath, [RELAY, String(PORT)])
    await this.relay.line((line) => line.startsWith('listening'), 60_000)
  }

  /** The host's resolver is the relay's machine, and knows relay.example. */
  async startResolver (): Promise<void> {
    writeFileSync(join(this.directory, 'resolv.conf'), 'nameserver 10.97.0.1\n')
    writeFileSync(join(this.directory, 'nsswitch.conf'), 'hosts: dns\n')
    for (const file of ['resolv.conf', 'nsswitch.conf']) {
      await this.host.run('sh', ['-c', `touch /etc/${file} && mount --bind ${join(this.directory, file)} /etc/${file}`])
    }
    this.dns = this.far.start('dnsmasq', [
      '--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts', '--user=root', '--pid-file=', '--bind-interfaces',
      '--listen-address=10.97.0.1', '--address=/relay.example/10.97.0.1'
    ])
    await sleep(0.5)
  }

  /** The host has an address on the second link in place of the one on the first. */
  async move (): Promise<void> {
    await ip(this.host, 'address del 10.98.1.2/30 dev up1')
    await ip(this.host, 'address add 10.98.2.2/30 dev up2')
    await ip(this.host, 'route replace 10.97.0.1 via 10.98.2.1')
  }

  /** Waits for the next datagram that comes back; how long that took in milliseconds. */
  async answer (timeout: number): Promise<number> {
    const since = performance.now()
    await this.traffic.line(() => true, timeout, this.traffic.lines.length)
    return Math.round(performance.now() - since)
  }

  async isBack (what: string, within = BACK_MS): Promise<void> {
    const took = await this.answer(40_000).catch((error: Error) => { this.t.comment(this.sidecar.output); throw error })
    const events = this.sidecar.lines.map((line) => JSON.parse(line)).filter(({ event }) => event === 'lost')
    this.t.comment(`${what}: back after ${took} ms; ${events.map(({ text }) => text).join('; ')}`)
    this.t.ok(took <= within + SLACK_MS, `${what}: ${took} ms`)
  }
}

const skip = missingForNamespaces(['dnsmasq']) ?? false

t.test('a sidecar on a network that changes', { skip, jobs: long ? 7 : 4 }, async (t) => {
  t.setTimeout(long ? 600_000 : 100_000)
  // Copied for each test, as tap writes to them.
  const options = { timeout: long ? 500_000 : 60_000 }
  const onlyLong = { ...options, skip: !long && 'with SPANZA_LONG=1 only: npm run test:network' }

  t.test('the address moves to another interface', { ...options }, async (t) => {
    const setup = await Setup.create(t)
    await setup.move()
    await setup.isBack('another address')
  })

  t.test('the route goes, and comes back', { ...options }, async (t) => {
    const setup = await Setup.create(t)
    await ip(setup.host, 'route del 10.97.0.1')
    await sleep(long ? 30 : 7)
    await ip(setup.host, 'route add 10.97.0.1 via 10.98.1.1')
    await setup.isBack('the route is there again')
  })

  t.test('the process is suspended, and wakes up in another network', { ...onlyLong }, async (t) => {
    const setup = await Setup.create(t)
    setup.sidecar.child.kill('SIGSTOP')
    await setup.move()
    await sleep(long ? 300 : 5)
    setup.sidecar.child.kill('SIGCONT')
    await setup.isBack('resumed')
  })

  t.test('the process is suspended, and its connection is forgotten on the way', { ...options }, async (t) => {
    const setup = await Setup.create(t)
    // What a NAT that has forgotten the connection does, without a reset: the new one has another address.
    await ip(setup.far, 'route add blackhole 10.98.1.2/32')
    setup.sidecar.child.kill('SIGSTOP')
    await sleep(long ? 300 : 5)
    await ip(setup.host, 'address add 10.98.2.2/30 dev up2')
    await ip(setup.host, 'route replace 10.97.0.1 via 10.98.2.1')
    setup.sidecar.child.kill('SIGCONT')
    await setup.isBack('resumed')
  })

  t.test('a black hole on the way, and a path by another address at once', { ...onlyLong }, async (t) => {
    const setup = await Setup.create(t)
    await ip(setup.host, 'address add 10.98.2.2/30 dev up2')
    await ip(setup.host, 'route replace 10.97.0.1 via 10.98.2.1')
    await ip(setup.far, 'route add blackhole 10.98.1.2/32')
    await setup.isBack('black hole', 6500)
  })

  t.test('a black hole on the way that closes', { ...onlyLong }, async (t) => {
    const setup = await Setup.create(t)
    await ip(setup.far, 'route add blackhole 10.98.1.2/32')
    await sleep(long ? 30 : 7)
    await ip(setup.far, 'route del blackhole 10.98.1.2/32')
    await setup.isBack('the hole is closed', 4500)
  })

  t.test('the resolver goes, then the connection', { ...options }, async (t) => {
    const setup = await Setup.create(t, `http://relay.example:${PORT}/echo`)
    await setup.dns!.stop('SIGKILL')
    await setup.relay.stop('SIGKILL')
    await sleep(2)
    await setup.startRelay()
    await setup.isBack('without a resolver')
  })
})
