import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { freePort } from '../helpers/ports.ts'
import { connect, type ConnectionEnd, type RelayConnection } from '../../lib/client/index.ts'
import { Program } from '../helpers/program.ts'
import { startApp } from '../helpers/relay-app.ts'
import { detached } from '../helpers/relay.ts'
import { until } from '../helpers/tunnel.ts'

// A process that stands still for a while, as on a machine that sleeps or swaps. Both sides run from the built package.

const RELAY = fileURLToPath(new URL('../fixtures/relay-process.js', import.meta.url))
const SPANZA = fileURLToPath(new URL('../../dist/cli/spanza.js', import.meta.url))
const CROWD = 50
const KEEPALIVE_TIMEOUT = 1000

if (process.platform === 'win32') {
  t.comment('skipped: there is no SIGSTOP on Windows')
  process.exit(0)
}

/** Resolves when a process has stopped, or runs again. */
async function state (program: Program, wanted: RegExp): Promise<void> {
  if (process.platform !== 'linux') return
  // The state is the first letter behind the name in parentheses.
  await until(() => wanted.test(/\) (\w) /.exec(readFileSync(`/proc/${program.child.pid}/stat`, 'utf8'))![1]!))
}

async function suspend (program: Program): Promise<void> {
  program.child.kill('SIGSTOP')
  await state(program, /T/)
}

async function sleep (ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms))
}

t.test('a relay that was suspended for longer than its keepaliveTimeout takes none of its peers for dead', async (t) => {
  const port = await freePort()
  const relay = new Program(process.execPath, [RELAY, JSON.stringify({
    port, options: { keepaliveInterval: 300, keepaliveTimeout: KEEPALIVE_TIMEOUT, writeTimeout: 500, pairTimeout: KEEPALIVE_TIMEOUT, handshakesPerSecond: 10_000 }
  })], { name: 'relay' })
  t.teardown(() => relay.stop('SIGKILL'))
  await relay.line((line) => line === 'listening', 20_000)
  const url = `http://127.0.0.1:${port}/relay`
  const ends: ConnectionEnd[] = []
  const peers: RelayConnection[] = []
  for (let i = 0; i < CROWD; i++) {
    const peer = await connect(`${url}/${Math.floor(i / 2)}`, { keepaliveInterval: 200, keepaliveTimeout: 60_000 })
    peer.on('close', (end) => ends.push(end))
    t.teardown(() => peer.close())
    peers.push(peer)
  }
  const [raw, otherRaw] = [await connect(`${url}/bare`, { framings: 'raw' }), await connect(`${url}/bare`, { framings: 'raw' })]
  const waiting = await connect(`${url}/waiting`, { framings: 'raw' })
  for (const stream of [raw, otherRaw, waiting]) t.teardown(() => stream.destroy())

  await suspend(relay)
  raw.write('while it stood still')
  // A suspension is time that passes: there is nothing else to wait for.
  await sleep(2 * KEEPALIVE_TIMEOUT)
  relay.child.kill('SIGCONT')

  await Promise.all(Array.from({ length: CROWD / 2 }, async (_, pair) => {
    const [a, b] = [peers[2 * pair]!, peers[2 * pair + 1]!]
    const received = once(b, 'message')
    a.send(Buffer.from(`hello ${pair}`))
    t.equal(String((await received)[0]), `hello ${pair}`)
  }))
  t.equal(String((await once(otherRaw, 'data'))[0]), 'while it stood still')
  const late = await connect(`${url}/waiting`, { framings: 'raw' })
  t.teardown(() => late.destroy())
  waiting.write('still waiting')
  t.equal(String((await once(late, 'data'))[0]), 'still waiting')
  t.same(ends, [])
  const { detached } = JSON.parse(await (await fetch(`http://127.0.0.1:${port}/stats`)).text())
  t.same(detached, {})
  // Whoever is silent from now on is found all the same.
  t.equal(peers.length, CROWD)
})

t.test('a sidecar that is suspended is closed after keepaliveTimeout, and connects again when it runs on', async (t) => {
  const app = await startApp(t, (app) => {
    app.relay('/relay', { identify: () => ({ id: 'sleeper' }) })
  }, { relay: { keepaliveInterval: 300, keepaliveTimeout: KEEPALIVE_TIMEOUT } })
  const directory = mkdtempSync(join(tmpdir(), 'spanza-suspended-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  writeFileSync(join(directory, 'token'), 'a token\n')
  const { port } = app.server.address() as AddressInfo
  const sidecar = new Program(process.execPath, [
    SPANZA, 'connect', `http://127.0.0.1:${port}/relay`, '--json', '--listen', '127.0.0.1:0', '--token-file', join(directory, 'token')
  ], { name: 'spanza' })
  t.teardown(() => sidecar.stop('SIGKILL'))
  const event = (name: string) => (line: string): boolean => JSON.parse(line).event === name
  await sidecar.line(event('connect'), 20_000)
  const leaving = detached(app, 'sleeper')
  await suspend(sidecar)
  t.match(await leaving, { reason: 'idle', text: `nothing received for ${KEEPALIVE_TIMEOUT} ms` })
  t.same(app.relayHub.peers(), [])

  const told = sidecar.lines.length
  sidecar.child.kill('SIGCONT')
  t.match(JSON.parse(await sidecar.line(event('lost'), 20_000, told)), { reason: 'idle' })
  await sidecar.line(event('connect'), 20_000, told)
  await until(() => app.relayHub.peers().length === 1)
  t.match(app.relayHub.stats(), { attached: 2, detached: { idle: 1 } })
  t.equal(sidecar.lines.slice(told).filter(event('connect')).length, 1)
})
