import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import spanzaRelay from '../../lib/index.ts'
import { exampleIn, readPage, runExample } from '../helpers/markdown.ts'
import { freePort } from '../helpers/ports.ts'
import { Program } from '../helpers/program.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { askForUpgrade, startApp, startListening, testJoined } from '../helpers/relay-app.ts'
import Fastify from 'fastify'

const page = readPage('docs/mounting.md')

const authenticate = async ({ headers }: { headers: { authorization?: string } }): Promise<void> => {
  if (headers.authorization === undefined) throw Object.assign(new Error('no token'), { statusCode: 401 })
}

async function statusOf (t: Test, app: FastifyInstance, path: string, headers: Record<string, string> = { Authorization: 'Bearer x' }, host?: string): Promise<number> {
  return (await askForUpgrade(t, app, path, host === undefined ? { headers } : { host, headers })).statusCode
}

t.test('the routes of docs/mounting.md are reached where it says', async (t) => {
  const app = await startApp(t, async (app) => await runExample(exampleIn(page, 'routes'), { app, authenticate }))
  for (const path of ['/relay/home', '/tunnels', '/tunnels/', '/tunnels/home']) {
    t.equal(await statusOf(t, app, path), 101, path)
    t.equal(await statusOf(t, app, path, {}), 401, `${path} without a token`)
  }
  t.equal(await statusOf(t, app, '/staff', undefined, 'vpn.example.com'), 101)
  t.equal((await app.inject('/staff')).body, 'a page for every other host')
  t.equal((await app.inject('/relay/home')).statusCode, 426, 'a plain GET')
})

t.test('path registers a relay route', async (t) => {
  const app = Fastify() as FastifyInstance
  await runExample(exampleIn(page, 'path'), { app, spanzaRelay, authenticate })
  await startListening(t, app)
  t.equal(await statusOf(t, app, '/relay'), 101)
  t.equal(await statusOf(t, app, '/relay', {}), 401)
})

t.test('the second server of docs/mounting.md takes upgrades as the first one does', async (t) => {
  // Within the repository, where the package finds itself by its name.
  const file = join(t.testdir({}), 'second-server.mjs')
  writeFileSync(file, exampleIn(page, 'second-server.mjs'))
  const ports = [await freePort(), await freePort()]
  const program = new Program(process.execPath, [file], { env: { PORT: String(ports[0]), SECOND_PORT: String(ports[1]) } })
  t.teardown(() => program.stop())
  await program.line((line) => line === 'listening', 20_000)
  const [first, second] = ports.map((port) => ({ server: { address: () => ({ port }) } }) as unknown as FastifyInstance)
  const pair = [await RawClient.dial(t, first!), await RawClient.dial(t, second!)] as const
  for (const client of pair) await client.upgrade(t, '/relay/home')
  await testJoined(t, ...pair)
  for (let i = 0; i < 2; i++) {
    const client = await RawClient.dial(t, second!)
    await client.send(requestText('/nothing', { headers: { Connection: 'Upgrade', Upgrade: 'h2c' } }))
    t.equal((await client.answer()).statusCode, 404, 'and what is no tunnel is served')
  }
  program.child.kill('SIGTERM')
  await Promise.all(pair.map(async ({ closed }) => await closed))
  await program.end(20_000)
})
