import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { Program } from '../helpers/program.ts'
import { RawClient, requestText, upgradeText, type Answer } from '../helpers/raw-client.ts'
import { testJoined } from '../helpers/relay-app.ts'

// OpenTelemetry's http instrumentation patches `emit` of all http servers, so each time runs in a process of its own.

const path = (relative: string): string => fileURLToPath(new URL(relative, import.meta.url))
const isBuilt = existsSync(path('../../dist/index.js'))

async function dial (t: Test, port: number): Promise<RawClient> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  t.teardown(() => socket.destroy())
  await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
  return new RawClient(socket)
}

const offer = { Connection: 'Upgrade', Upgrade: 'h2c' }

for (const when of ['before', 'before, with hooks for ES modules', 'behind the import', 'when it listens']) {
  t.test(`http instrumentation loaded ${when}`, { skip: isBuilt ? false : 'needs the built package: npm run build' }, async (t) => {
    const program = new Program(process.execPath, ['--no-deprecation', path('traced-app.js'), when], { name: 'traced app', cwd: path('../..') })
    t.teardown(async () => await program.stop('SIGKILL'))
    const { port } = JSON.parse(await program.line((line) => line.includes('port'), 30_000)) as { port: number }
    const ask = async (text: string): Promise<Answer> => {
      const client = await dial(t, port)
      await client.send(text)
      return await client.answer()
    }

    for (const channel of ['a', 'b']) {
      const tunnels = [await dial(t, port), await dial(t, port)] as const
      for (const tunnel of tunnels) await tunnel.upgrade(t, `/relay/${channel}`)
      await testJoined(t, ...tunnels)
      t.match(await ask(upgradeText('/relay/x', { headers: { 'X-Refuse': 'yes' } })), { statusCode: 401, headers: { connection: 'close' } })
      t.match(await ask(upgradeText('/relay/x', { headers: offer })), { statusCode: 400, headers: { connection: 'close' } })
      t.equal((await ask(requestText('/rest'))).body, '{}')
      t.equal((await ask(requestText('/rest', { headers: offer }))).body, '{"upgrade":"h2c"}')
      const post = { method: 'POST', headers: { ...offer, 'Content-Type': 'application/json', 'Content-Length': '7' }, body: '{"a":1}' }
      t.equal((await ask(requestText('/rest', post))).body, '{"a":1}')
    }

    program.child.kill()
    t.equal(await program.end(30_000), 0, 'it closes with all tunnels open')
    const lines = program.lines.map((line) => JSON.parse(line) as { began?: string, ended?: string, target?: string })
    const began = lines.flatMap(({ began = [] }) => began)
    const ended = lines.flatMap(({ ended = [] }) => ended)
    t.same([...ended].sort(), [...began].sort(), 'each span has ended, once')
    t.same(lines.filter(({ target }) => target === '/rest').length, 6, 'of each REST request')
    t.same(lines.filter(({ target }) => target?.startsWith('/relay')), [], 'and there is none of a handshake, that would be as long as its tunnel')
  })
}
