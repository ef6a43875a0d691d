import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { exampleIn, readPage } from '../helpers/markdown.ts'
import { freePort } from '../helpers/ports.ts'
import { Program } from '../helpers/program.ts'

// What a new user does: install the package, paste the README's example, run it.

const ROOT = fileURLToPath(new URL('../..', import.meta.url))

t.setTimeout(180_000)

t.test('the packed package runs the example of the README', async (t) => {
  t.setTimeout(180_000)
  // Outside the repository, where no other node_modules can be found.
  const folder = mkdtempSync(join(tmpdir(), 'spanza-readme-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))

  // Without its scripts: they would build dist/ anew under the feet of other tests.
  const [packed] = JSON.parse(await npm(ROOT, ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]))
  const files: string[] = packed.files.map((file: { path: string }) => file.path)

  t.test('holds only what users need', async (t) => {
    t.same(files.filter((path) => !/^(?:dist\/|docs\/[\w-]+\.md$)/.test(path)).sort(), ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json'])
    for (const path of ['dist/index.js', 'dist/index.d.ts', 'dist/client/index.js', 'dist/client/index.d.ts', 'dist/cli/spanza.js', 'dist/metrics/index.js', 'dist/admin/index.js', 'dist/admin/page/index.html']) {
      t.ok(files.includes(path), path)
    }
    t.same(files.filter((path) => path.startsWith('dist/') && !path.startsWith('dist/admin/page/') && !/\.(js|d\.ts)$/.test(path)), [])
  })

  t.test('installs beside fastify, and the example relays', async (t) => {
    t.setTimeout(150_000)
    const readme = readPage('README.md')
    const { fastify } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).devDependencies
    const example = exampleIn(readme, 'app.mjs')
    writeFileSync(join(folder, 'package.json'), '{}\n')
    writeFileSync(join(folder, 'app.mjs'), example)
    await npm(folder, ['install', '--prefer-offline', '--no-audit', '--no-fund', `./${packed.filename}`, `fastify@${fastify}`])

    const port = await freePort()
    const app = new Program(process.execPath, ['app.mjs'], { cwd: folder, env: { PORT: String(port) } })
    t.teardown(() => app.stop())
    const path = /\.relay\('([^']+)'/.exec(example)![1]!
    const token = /SPANZA_TOKEN=([\w-]+)/.exec(readme)![1]!
    t.match(await upgrade(app, port, path, `Authorization: Bearer ${token}\r\n`), /^HTTP\/1\.1 101 Switching Protocols\r\n/)
    t.match(await upgrade(app, port, path), /^HTTP\/1\.1 401 /, 'and only with a token')

    const spanza = new Program(join(folder, 'node_modules', '.bin', 'spanza'), [
      'connect', `http://127.0.0.1:${port}${path}`, '--listen', '127.0.0.1:0', '--json'
    ], { env: { SPANZA_TOKEN: token } })
    t.teardown(() => spanza.stop())
    await spanza.line((line) => JSON.parse(line).event === 'connect', 10_000)
  })
})

function npm (cwd: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile('npm', args, { cwd, timeout: 120_000 }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout)
      else reject(new Error(`npm ${args.join(' ')}: ${error.message}\n${stdout}\n${stderr}`))
    })
    child.stdin!.end()
  })
}

/** The header of the answer to an upgrade, asked for until the app listens. */
async function upgrade (app: Program, port: number, path: string, headers = ''): Promise<string> {
  const deadline = Date.now() + 20_000
  while (true) {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost:${port}\r\nConnection: Upgrade\r\nUpgrade: spanza\r\n${headers}\r\n`)
      let header = ''
      while (!header.includes('\r\n\r\n')) header += String((await once(socket, 'data', { signal: AbortSignal.timeout(5000) }))[0])
      return header
    } catch (error) {
      if (Date.now() > deadline || app.child.exitCode !== null) throw new Error(`${String(error)}; the app wrote:\n${app.output}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
    } finally {
      socket.destroy()
    }
  }
}
