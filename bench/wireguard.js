import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { contest } from './lib/contest.js'
import { missingForNamespaces, Namespace } from './lib/namespace.js'
import { cpuOfProcess, NodeRelay } from './lib/process.js'
import { hasProgram, versionOf } from './lib/programs.js'
import { Report } from './lib/report.js'
import { missingForWireGuard, WireGuardHost } from './lib/wireguard-host.js'

const CLI = fileURLToPath(new URL('../dist/cli/spanza.js', import.meta.url))

/** The one of PATH, or another that is named. */
const WSTUNNEL = process.env.WSTUNNEL ?? 'wstunnel'

const SECONDS = 2

/** WireGuard asks for a session every 5 s. */
const PATIENCE = 20

export default async function run () {
  const obstacle = await missingForNamespaces() ?? await missingForWireGuard() ?? (hasProgram('iperf3') ? undefined : 'needs iperf3')
  if (obstacle !== undefined) return console.log(`\nSKIPPED: wireguard ${obstacle}`)
  const report = new Report('wireguard', 'TCP of iperf3 through WireGuard, from one host to another', { isPinned: false })
  const places = await makePlaces()
  const joined = await joinAll(places, report)
  const [first, second] = places.hosts
  const figures = await contest(Object.keys(joined), (name) => measure(first.namespace, joined[name]))
  await Promise.all([places.center, first.namespace, second.namespace].map((namespace) => namespace.close()))

  const { direct, relay, wstunnel } = figures
  report.ratio('through the relay against direct: throughput', 'megabits', relay, direct)
  if (wstunnel) {
    report.ratio('through the relay against wstunnel: throughput', 'megabits', relay, wstunnel)
    report.ratio('through the relay against wstunnel: CPU per GB', 'cpuPerGb', relay, wstunnel)
  }
  report.table('way', {
    megabits: ['Mbit/s', 0],
    retransmits: ['retransmits', 0],
    cpuPerGb: ['CPU s/GB of the tunnel', 2],
    sender: ["CPU µs of a datagram: sender's end", 2],
    receiver: ["receiver's end", 2],
    middle: ['relay', 2]
  }, figures)
  report.note(`WireGuard: ${first.implementation}. The tunnel: both sidecars and the relay, or both clients of wstunnel and its server.`)
  report.note('Hosts and relay share the processors of this machine: what a tunnel takes of them, WireGuard and iperf3 have not.')
  if (wstunnel) report.note(`wstunnel ${versionOf(WSTUNNEL, '--version')}`)
  report.finish()
}

/** Two hosts with a link between them, and the center that both have a link to. */
async function makePlaces () {
  const [center, a, b] = await Promise.all([Namespace.create(), Namespace.create(), Namespace.create()])
  await a.link('direct', '10.97.0.1/30', b, 'direct', '10.97.0.2/30')
  await a.link('uplink', '10.98.1.2/30', center, 'host1', '10.98.1.1/30')
  await b.link('uplink', '10.98.2.2/30', center, 'host2', '10.98.2.1/30')
  b.start(['iperf3', '--server'])
  return { center, hosts: [new WireGuardHost(a), new WireGuardHost(b)] }
}

/** Joins the hosts in each way, without wstunnel where it cannot be had. */
async function joinAll (places, report) {
  const direct = await joinHosts(places, 0, joinDirectly)
  const relay = await joinHosts(places, 1, joinByRelay)
  try {
    return { direct, relay, wstunnel: await joinHosts(places, 2, joinByWstunnel) }
  } catch (error) {
    report.note(`Left out, wstunnel: ${error.message}.`)
    return { direct, relay }
  }
}

/**
 * Joins them by WireGuard interfaces, and a network inside WireGuard, of their own.
 * @returns what `measure` needs, once something has come through
 */
async function joinHosts ({ hosts, center }, number, join) {
  const device = `wg${number}`
  const port = 51820 + 10 * number
  const addresses = hosts.map((host, i) => `10.99.${number}.${i + 1}`)
  const { endpoints, ...way } = await join(hosts.map(({ namespace }) => namespace), center, port)
  for (const [i, host] of hosts.entries()) await host.addInterface(device, `${addresses[i]}/24`, port)
  for (const [i, host] of hosts.entries()) await host.setPeer(device, hosts[1 - i], addresses[1 - i], endpoints[i])
  await hosts[0].namespace.run('ping', '-n', '-c', '1', '-w', String(PATIENCE), addresses[1]).catch(() => {
    throw new Error(`nothing has come through in ${PATIENCE} s`)
  })
  return { to: addresses[1], ...way }
}

async function joinDirectly (hosts, center, port) {
  return { endpoints: [`10.97.0.2:${port}`, `10.97.0.1:${port}`] }
}

async function joinByRelay (hosts, center, port) {
  const relay = await NodeRelay.start('plugin.js', { host: '0.0.0.0' }, center)
  const local = `127.0.0.1:${port + 1}`
  const sidecars = hosts.map((host, i) => host.start([
    process.execPath, CLI, 'connect', `http://10.98.${i + 1}.1:${relay.port}/relay/wireguard`, '--listen', local, '--forward', `127.0.0.1:${port}`
  ], { env: { ...process.env, SPANZA_TOKEN: 'some-token' } }))
  return {
    endpoints: [local, local],
    pids: [...sidecars.map(({ pid }) => pid), ...relay.pids],
    datagrams: () => relay.datagrams()
  }
}

/** As with the relay, both hosts connect to the center and to nobody else: the second by a remote forwarding. */
async function joinByWstunnel (hosts, center, port) {
  if (!hasProgram(WSTUNNEL)) throw new Error('it is neither in PATH nor named by WSTUNNEL')
  const local = `127.0.0.1:${port + 1}`
  const remote = '127.0.0.1:51820'
  const server = center.start([WSTUNNEL, 'server', 'ws://0.0.0.0:8080'])
  const first = hosts[0].start([WSTUNNEL, 'client', '-L', `udp://${local}:${remote}?timeout_sec=0`, 'ws://10.98.1.1:8080'])
  const second = hosts[1].start([WSTUNNEL, 'client', '-R', `udp://${remote}:127.0.0.1:${port}?timeout_sec=0`, 'ws://10.98.2.1:8080'])
  return { endpoints: [local, undefined], pids: [first, second, server].map(({ pid }) => pid) }
}

/**
 * @param way of the sender's end, the receiver's and the middle: `pids`; and how many datagrams have passed, if that is known
 * @param attempts on a busy machine, iperf3 fails at times
 */
async function measure (from, way, attempts = 3) {
  const { to, pids, datagrams } = way
  const used = pids?.map(cpuOfProcess)
  const passed = await datagrams?.()
  const end = await iperf3(from, to).catch(async (error) => {
    if (attempts === 1) throw error
    await sleep(1000)
  })
  if (end === undefined) return await measure(from, way, attempts - 1)
  const cpu = pids?.map((pid, i) => cpuOfProcess(pid) - used[i])
  const count = await datagrams?.() - passed
  return {
    megabits: end.sum_received.bits_per_second / 1e6,
    retransmits: end.sum_sent.retransmits,
    ...(cpu && { cpuPerGb: (cpu[0] + cpu[1] + cpu[2]) / end.sum_received.bytes * 1e9 }),
    ...(datagrams && { sender: cpu[0] / count * 1e6, receiver: cpu[1] / count * 1e6, middle: cpu[2] / count * 1e6 })
  }
}

async function iperf3 (from, to) {
  const { error, end } = JSON.parse(await from.run('iperf3', '--client', to, '--time', String(SECONDS), '--json'))
  if (end.sum_received === undefined) throw new Error(`iperf3: ${error ?? 'no result'}`)
  return end
}
