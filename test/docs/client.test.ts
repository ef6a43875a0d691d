import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import t, { type Test } from 'tap'
import {
  connect, errors, UdpSidecar,
  type ConnectionEndReason, type DatagramOptions, type RawConnectOptions, type RelayConnection, type RelayConnectionEvents,
  type RelayRefusedError, type SidecarDropReason, type SidecarEvents, type SidecarOptions, type SidecarStats
} from '../../lib/client/index.ts'
import { planConnect } from '../../lib/client/options/connect-plan.ts'
import { noConnectionStats } from '../../lib/client/connection/connection-stats.ts'
import { closeReasons } from '../../lib/tunnel/close-reasons.ts'
import { exampleIn, namesIn, readPage, runExample, tablesOf } from '../helpers/markdown.ts'
import { startApp } from '../helpers/relay-app.ts'
import { until } from '../helpers/tunnel.ts'

// docs/client.md: its tables against the code, its examples against a relay.

const page = readPage('docs/client.md')

type ConnectOption = keyof DatagramOptions | keyof RawConnectOptions

const connectOptions = Object.keys({
  httpVersion: true,
  protocol: true,
  keyless: true,
  headers: true,
  token: true,
  host: true,
  servername: true,
  tls: true,
  createConnection: true,
  proxy: true,
  proxyTls: true,
  localAddress: true,
  proxyProtocol: true,
  signal: true,
  handshakeTimeout: true,
  framings: true,
  maxPacketSize: true,
  keepaliveInterval: true,
  keepaliveTimeout: true,
  earlyData: true
} satisfies Record<ConnectOption, true>)

type OwnSidecarOption = Exclude<keyof SidecarOptions, ConnectOption> | 'token' | 'tls' | 'protocol'

const sidecarOptions = Object.keys({
  url: true, token: true, tls: true, protocol: true, listen: true, forward: true, retryReplaced: true
} satisfies Record<OwnSidecarOption, true>)

const events = {
  connection: { message: true, draining: true, notice: true, close: true } satisfies Record<keyof RelayConnectionEvents, true>,
  sidecar: {
    listening: true, connect: true, fallback: true, oversized: true, lost: true, retry: true, drain: true, loop: true, notice: true, stop: true
  } satisfies Record<keyof SidecarEvents, true>
}

const ownEndReasons = { closed: true, lost: true, unknown: true } satisfies Record<Exclude<ConnectionEndReason, keyof typeof closeReasons>, true>

const sidecarDrops = {
  outage: true, 'not-loopback': true, 'no-return-address': true, 'udp-too-large': true, 'udp-queue-full': true, 'udp-error': true
} satisfies Record<Exclude<SidecarDropReason, keyof ReturnType<typeof noConnectionStats>['drops']>, true>

function namesOf (rows: string[][]): string[] {
  return rows.flatMap(([cell]) => namesIn(cell!)).sort()
}

t.test('the options of connect and of a sidecar', (t) => {
  const [ofConnect, ofSidecar, ...more] = tablesOf(page, 'option', 'default', 'values')
  t.same(more, [])
  t.same(namesOf(ofConnect!), [...connectOptions].sort())
  t.same(namesOf(ofSidecar!), [...sidecarOptions].sort())
  const plan = planConnect('http://localhost', {})
  for (const name of ['httpVersion', 'handshakeTimeout', 'maxPacketSize', 'keepaliveInterval', 'keepaliveTimeout'] as const) {
    const [, fallback, values] = ofConnect!.find(([cell]) => cell === `\`${name}\``)!
    t.equal(fallback, String(plan[name]), `default of ${name}`)
    const [, range] = /^(\d+ to \d+)/.exec(values!) ?? []
    if (range === undefined) continue
    t.throws(() => planConnect('http://localhost', { [name]: 0 }), { code: 'FST_RELAY_CLIENT_OPTION', message: new RegExp(range) }, `range of ${name}`)
  }
  t.equal(ofConnect!.find(([cell]) => cell === '`framings`')![1], `\`['${(plan.framings as string[]).join("', '")}']\``)
  t.equal(ofConnect!.find(([cell]) => cell === '`protocol`')![1], `\`'${plan.protocol}'\``)
  t.end()
})

t.test('events, reasons and counters', (t) => {
  const [ofConnection, ofSidecar] = tablesOf(page, 'event', 'argument')
  t.same(namesOf(ofConnection!), Object.keys(events.connection).sort())
  t.same(namesOf(ofSidecar!), Object.keys(events.sidecar).sort())
  t.same(namesOf(tablesOf(page, '`reason`').flat()), Object.keys(ownEndReasons).sort())
  const [drops, dropsOfSidecar] = tablesOf(page, 'drop reason')
  t.same(namesOf(drops!), Object.keys(noConnectionStats().drops).sort())
  t.same(namesOf(dropsOfSidecar!), Object.keys(sidecarDrops).sort())
  const counters = Object.keys(new UdpSidecar({ url: 'http://localhost' }).stats) as Array<keyof SidecarStats>
  t.same(namesOf(tablesOf(page, 'field', 'counts').flat()).filter((name) => name !== 'drained'), counters.filter((name) => !(name in noConnectionStats())).sort())
  t.end()
})

t.test('members of a connection, and fields of a refusal', async (t) => {
  const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async ({ url }) => { if (url.includes('no')) throw Object.assign(new Error('no'), { statusCode: 403 }) } }))
  const url = urlOf(app.server.address())
  const connection = await connect(`${url}/relay`)
  const members = namesOf(tablesOf(page, 'member').flat()).map((name) => name.replace(/\(.*/, ''))
  t.same(members.sort(), Object.getOwnPropertyNames(Object.getPrototypeOf(connection)).concat(Object.keys(connection))
    .filter((name) => !name.startsWith('_') && name !== 'constructor' && name !== 'domain').sort())
  connection.close()
  const error = await connect(`${url}/relay?no`).catch((error) => error)
  t.ok(error instanceof errors.FST_RELAY_REFUSED)
  const [fields] = tablesOf(page, 'field', 'meaning')
  const known: Record<Exclude<keyof RelayRefusedError, keyof Error | 'code'>, true> = { statusCode: true, answeredBy: true, relayCode: true, retryAfter: true }
  t.same(namesOf(fields!).filter((name) => name in known), Object.keys(known).sort())
})

t.test('the codes that connect rejects with', (t) => {
  const documented = namesOf(tablesOf(page, 'code', 'when').flat())
  const all = Object.keys(errors)
  const ofClient = all.slice(all.indexOf('FST_RELAY_REFUSED')).filter((code) => code !== 'FST_RELAY_ABORTED')
  t.same(documented, ofClient.sort())
  t.end()
})

t.test('the examples', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay/:network')
    app.relay('/ssh', { target: 'tcp://127.0.0.1:1' })
  })
  const url = urlOf(app.server.address())

  await t.test('datagrams', async (t) => {
    const other = await connect(`${url}/relay/home`)
    const lines = await run(t, 'datagrams', url)
    const [datagram] = await once(other, 'message')
    t.equal(String(datagram), 'hello')
    other.send(Buffer.from('back'))
    await until(() => lines.length === 1)
    t.same(lines, [['a datagram', Buffer.from('back')]])
    app.relayHub.disconnect({ channel: 'home', id: app.relayHub.peers().at(-1)!.id }, 'enough')
    other.close()
    await until(() => lines.length === 2)
    t.same(lines[1], ['closed', 'disconnected', 'enough', false])
  })

  await t.test('a byte stream, and one with early data', async (t) => {
    const server = createServer((socket) => socket.on('error', () => {}).end('banner'))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => server.close())
    const { port } = server.address() as AddressInfo
    const ssh = await startApp(t, (app) => app.relay('/ssh', { target: `tcp://127.0.0.1:${port}` }))
    for (const example of ['stream', 'keyless']) {
      const lines = await run(t, example, urlOf(ssh.server.address()))
      await until(() => lines.length > 0)
      t.same(lines[0], ['bytes', Buffer.from('banner')], example)
    }
  })

  await t.test('a sidecar', async (t) => {
    const lines = await run(t, 'sidecar', url)
    await until(() => lines.length >= 2)
    t.match(lines.map(([what]) => what).sort(), ['connected', 'listening'])
  })
})

function urlOf (address: AddressInfo | string | null): string {
  return `http://127.0.0.1:${(address as AddressInfo).port}`
}

/** Runs an example with this relay in place of its own. @returns what it logs */
async function run (t: Test, name: string, url: string): Promise<unknown[][]> {
  const lines: unknown[][] = []
  const log = (...line: unknown[]): void => { lines.push(line) }
  const code = exampleIn(page, name)
    .replace('https://relay.example.com', url)
    .replace('wss://relay.example.com', url.replace('http', 'ws'))
    .replace('127.0.0.1:51821', '127.0.0.1:0')
  const opened: Array<{ close?: () => unknown, destroy?: () => unknown }> = []
  t.teardown(async () => { for (const each of opened) await (each.close ?? each.destroy)!.call(each) })
  const watchedConnect = async (...args: Parameters<typeof connect>): Promise<RelayConnection> => {
    const connection = await connect(...args)
    opened.push(connection as never)
    return connection as RelayConnection
  }
  class WatchedSidecar extends UdpSidecar {
    constructor (options: SidecarOptions) {
      super(options)
      opened.push(this)
    }
  }
  await runExample(code, { connect: watchedConnect, UdpSidecar: WatchedSidecar, token: 'token', console: { log, error: log } })
  return lines
}
