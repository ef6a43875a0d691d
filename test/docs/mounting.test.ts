import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { freePort } from '../helpers/ports.ts'
import { Program } from '../helpers/program.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'
import { testJoined } from '../helpers/relay-app.ts'

const page = readFileSync(fileURLToPath(new URL('../../docs/mounting.md', import.meta.url)), 'utf8')

t.test('the second server of docs/mounting.md takes upgrades as the first one does', async (t) => {
  const [, code] = /<!-- example: second-server.mjs -->\n```js\n(.*?)```/s.exec(page)!
  // Within the repository, where the package finds itself by its name.
  const file = join(t.testdir({}), 'second-server.mjs')
  writeFileSync(file, code!)
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
