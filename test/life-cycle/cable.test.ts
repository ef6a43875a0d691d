import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { missingForNamespaces, Namespace } from '../helpers/namespace.ts'
import type { Program } from '../helpers/program.ts'

// A cable is cut: no FIN and no RST, bytes go nowhere. Relay and clients are in namespaces with a link between them
// that is taken down.

const RELAY = fileURLToPath(new URL('../fixtures/relay-process.js', import.meta.url))
const CLIENT = fileURLToPath(new URL('../fixtures/cut-client.js', import.meta.url))
const PORT = 8080
const KEEPALIVE = { keepaliveInterval: 500, keepaliveTimeout: 1500 }
const DEADLINE = 20_000

t.setTimeout(120_000) // Half a minute of deadlines, where nothing else runs.

const missing = missingForNamespaces(['ss'])
if (missing !== undefined) t.comment(`skipped: a cut cable ${missing}`)

interface Network {
  relay: Namespace
  client: Namespace
  cut: () => Promise<unknown>
  mend: () => Promise<unknown>
  /** The relay's output tells who leaves and why. */
  program: Program
}

async function network (t: Test, options: object): Promise<Network> {
  const [relay, client] = await Promise.all([Namespace.create('relay'), Namespace.create('client')])
  for (const namespace of [relay, client]) t.teardown(() => namespace.close())
  await relay.link('to-client', '10.97.0.1/30', client, 'to-relay', '10.97.0.2/30')
  const program = relay.start(process.execPath, [RELAY, JSON.stringify({ port: PORT, host: '0.0.0.0', options })])
  await program.line((line) => line === 'listening', DEADLINE)
  // The relay's end goes down: neither side's sockets hear of it.
  const set = (state: string) => async () => await relay.run('ip', ['link', 'set', 'to-client', state])
  return { relay, client, program, cut: set('down'), mend: set('up') }
}

const event = (name: string) => (line: string): boolean => JSON.parse(line).event === name
const detach = (reason: string) => (line: string): boolean => line.startsWith(`detach ${reason} `)

for (const framing of ['wg', 'len16']) {
  t.test(`the relay finds a cut cable by its keepalive, the sidecar by its address, and it connects again when it is mended (${framing})`, { skip: missing ?? false }, async (t) => {
    const { client, program, cut, mend } = await network(t, KEEPALIVE)
    const sidecar = client.start(process.execPath, [CLIENT, JSON.stringify({ url: `http://10.97.0.1:${PORT}/relay/home`, framings: [framing], handshakeTimeout: 1000, ...KEEPALIVE })])
    await sidecar.line(event('connect'), DEADLINE)
    await cut()
    const told = sidecar.lines.length
    t.match(await program.line(detach('idle'), DEADLINE), /nothing received for 1500 ms/)
    t.match(JSON.parse(await sidecar.line(event('lost'), DEADLINE, told)), { reason: 'lost', text: /^this machine does not have the address [\d.]+ any more$/ })
    await sidecar.line(event('retry'), DEADLINE, told)
    t.equal(program.lines.filter(detach('idle')).length, 1)
    await mend()
    await sidecar.line(event('connect'), DEADLINE, told)
  })
}

t.test('a relay that cannot get rid of its data finds a cut cable by the write deadline', { skip: missing ?? false }, async (t) => {
  const { relay, client, program, cut } = await network(t, { writeTimeout: 800, keepaliveInterval: 60_000, keepaliveTimeout: 90_000 })
  const far = client.start(process.execPath, [CLIENT, JSON.stringify({ url: `http://10.97.0.1:${PORT}/relay/home` })])
  await far.line(event('connect'), DEADLINE)
  const near = relay.start(process.execPath, [CLIENT, JSON.stringify({ url: `http://127.0.0.1:${PORT}/relay/home`, floods: true })])
  await near.line(event('connect'), DEADLINE)
  await cut()
  await program.line(detach('write-deadline'), DEADLINE)
})

t.test('a bare tunnel over a cut cable', { skip: missing ?? false }, async (t) => {
  const { relay, client, program, cut } = await network(t, { idleTimeout: 1000, pairTimeout: 60_000 })
  const tunnels = [client.start(process.execPath, [CLIENT, JSON.stringify({ url: `http://10.97.0.1:${PORT}/relay/bare`, framings: 'raw' })])]
  await tunnels[0]!.line(event('connect'), DEADLINE)
  const timers = await relay.run('ss', ['-tnoH', 'state', 'established', `( sport = :${PORT} )`])
  t.match(timers, /timer:\(keepalive,(?:59|60|1min|5\d)/, 'is watched by TCP, in the end')
  const own = await client.run('ss', ['-tnoH', 'state', 'established', `( dport = :${PORT} )`])
  t.match(own, /timer:\(keepalive,/, 'on the client\'s side as well')
  await cut()
  t.match(await program.line(detach('idle'), DEADLINE), /nothing received for 1000 ms/, 'and is closed by idleTimeout')
})
