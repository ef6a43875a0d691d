import type { FastifyInstance } from 'fastify'
import type { AddressInfo } from 'node:net'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { UdpSidecar, type SidecarStop } from '../../lib/client/index.ts'
import { Program } from '../helpers/program.ts'
import { startApp } from '../helpers/relay-app.ts'
import { startRelay } from '../helpers/relay.ts'
import { askForTunnel, openTunnel, Tunnel, until, type Refusal, type TunnelOptions } from '../helpers/tunnel.ts'
import { publicKey } from '../helpers/wireguard-messages.ts'

// Two devices that were given one identity, by a copied disk image, say: they must not throw each other out for ever.

/** What docs/limits.md promises: an identity is replaced no more often within a minute. */
const REPLACEMENTS = 5
const SPANZA = fileURLToPath(new URL('../../dist/cli/spanza.js', import.meta.url))

/** Two clients that know nothing better than to come back at once, until they were refused `times` times. */
async function fight (t: Test, app: FastifyInstance, identities: readonly TunnelOptions[], times: number): Promise<{ refusals: Refusal[], current: Tunnel }> {
  const refusals: Refusal[] = []
  let current: Tunnel | undefined
  for (const identity of identities) {
    const comeBack = async (): Promise<void> => {
      while (refusals.length < times) {
        const answer = await askForTunnel(t, app, identity)
        if (answer instanceof Tunnel) {
          current = answer
          await Promise.race([answer.ended, answer.closed])
          answer.socket.destroy()
        } else {
          refusals.push(answer)
        }
      }
    }
    comeBack().catch((error) => t.fail(error))
  }
  await until(() => refusals.length >= times)
  return { refusals, current: current! }
}

const key = publicKey()
const shared: Record<string, [TunnelOptions, TunnelOptions]> = {
  'an id': [{ id: 'twin' }, { id: 'twin' }],
  'an id, with a key each': [{ id: 'twin', key: publicKey() }, { id: 'twin', key: publicKey() }],
  'a public key': [{ key }, { key }],
  'a public key, with an id each': [{ id: 'one', key }, { id: 'other', key }],
  'an id on bare tunnels': [{ id: 'twin', framing: 'raw' }, { id: 'twin', framing: 'raw' }]
}

for (const [what, identities] of Object.entries(shared)) {
  t.test(`two clients that share ${what} and come back at once are stopped, and the one that is in stays`, async (t) => {
    const app = await startRelay(t)
    const isRaw = identities[0].framing === 'raw'
    const bystander = await openTunnel(t, app, { id: 'bystander', path: isRaw ? '/relay/other' : '/relay/home' })
    const { refusals, current } = await fight(t, app, identities, 40)
    t.equal(app.relayHub.stats().attached, 1 + 1 + REPLACEMENTS)
    for (const refusal of refusals) {
      t.match(refusal, { statusCode: 429, code: 'FST_RELAY_REPLACED_TOO_OFTEN', head: /^retry-after: \d+\r$/im })
    }
    t.equal(app.relayHub.peers().length, 2)
    if (!isRaw) await current.roundTrip()
    t.equal(current.socket.destroyed, false)
    await bystander.roundTrip()
  })
}

t.test('the limit is one for each identity', async (t) => {
  const app = await startRelay(t)
  for (const id of ['a', 'b']) {
    for (let i = 0; i <= REPLACEMENTS; i++) await openTunnel(t, app, { id })
    t.match(await askForTunnel(t, app, { id }), { statusCode: 429 })
  }
  await openTunnel(t, app, { id: 'c' })
})

t.test('whoever comes back after its tunnel has ended replaces nobody, however often', async (t) => {
  const app = await startRelay(t)
  for (let i = 0; i < REPLACEMENTS * 3; i++) {
    const tunnel = await openTunnel(t, app, { id: 'a' })
    tunnel.socket.end()
    await until(() => app.relayHub.peers().length === 0)
  }
  t.equal(app.relayHub.stats().attached, REPLACEMENTS * 3)
})

async function twinRelay (t: Test): Promise<{ app: FastifyInstance, url: string }> {
  const app = await startApp(t, (app) => app.relay('/relay', { identify: () => ({ id: 'twin' }) }))
  return { app, url: `http://127.0.0.1:${(app.server.address() as AddressInfo).port}/relay` }
}

t.test('of two sidecars the older one is told, and gives up', async (t) => {
  const { app, url } = await twinRelay(t)
  const sidecars = [0, 1].map(() => new UdpSidecar({ url, listen: '127.0.0.1:0' }))
  for (const sidecar of sidecars) t.teardown(() => sidecar.close())
  const [first, second] = sidecars as [UdpSidecar, UdpSidecar]
  const events: string[] = []
  first.on('lost', () => events.push('first lost')).on('retry', () => events.push('first retries'))
  for (const name of ['lost', 'retry', 'stop'] as const) second.on(name, () => events.push(`second ${name}`))
  const connected = new Promise((resolve) => first.on('connect', resolve))
  await first.start()
  await connected
  const stopped = new Promise<SidecarStop>((resolve) => first.on('stop', resolve))
  await second.start()
  t.match(await stopped, { reason: 'replaced' })
  t.same(events, [])
  t.match(app.relayHub.stats(), { attached: 2, peers: 1, detached: { replaced: 1 } })
})

t.test('two sidecars that insist are held off by the relay, and one of them stays connected', async (t) => {
  const { app, url } = await twinRelay(t)
  const sidecars = [0, 1].map(() => new UdpSidecar({ url, listen: '127.0.0.1:0', retryReplaced: true }))
  for (const sidecar of sidecars) t.teardown(() => sidecar.close())
  const heldOff = Promise.race(sidecars.map(async (sidecar) => await new Promise<{ error: Error, retryIn: number }>((resolve) => sidecar.on('retry', resolve))))
  await Promise.all(sidecars.map(async (sidecar) => await sidecar.start()))
  const { error, retryIn } = await heldOff
  t.match(error, { statusCode: 429, relayCode: 'FST_RELAY_REPLACED_TOO_OFTEN' })
  t.ok(retryIn >= 5000, `${retryIn} ms`)
  // One replacement comes back every 12 s.
  t.ok(app.relayHub.stats().attached <= 1 + REPLACEMENTS + 1, `${app.relayHub.stats().attached} attached`)
  t.equal(app.relayHub.peers().length, 1)
})

t.test('of two commands the older one ends with the exit code 4', async (t) => {
  const { url } = await twinRelay(t)
  const directory = mkdtempSync(join(tmpdir(), 'spanza-twin-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  writeFileSync(join(directory, 'token'), 'the same token\n')
  const [first, second] = [0, 1].map(() => {
    const args = [SPANZA, 'connect', url, '--json', '--listen', '127.0.0.1:0', '--token-file', join(directory, 'token')]
    return () => {
      const program = new Program(process.execPath, args, { name: 'spanza' })
      t.teardown(() => program.stop('SIGKILL'))
      return program
    }
  }) as [() => Program, () => Program]
  const connected = (line: string): boolean => JSON.parse(line).event === 'connect'
  const older = first()
  await older.line(connected, 20_000)
  const newer = second()
  await newer.line(connected, 20_000)
  t.equal(await older.end(20_000), 4)
  t.match(JSON.parse(older.lines.at(-1)!), { event: 'stop', reason: 'replaced' })
  t.equal(newer.child.exitCode, null)
  t.same(newer.lines.map((line) => JSON.parse(line).event), ['listening', 'connect'])
})
