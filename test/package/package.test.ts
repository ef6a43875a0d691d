import { execFile, execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { plainEnvironment } from '../helpers/program.ts'

// The package as npm packs it, and a strict TypeScript project that uses it. Needs `npm run build` first.

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))

const directory = mkdtempSync(join(tmpdir(), 'spanza-package-'))
t.setTimeout(180_000) // The compiler takes its time on a busy machine.
t.teardown(() => rmSync(directory, { recursive: true, force: true }))

// A copy, not a link: TypeScript looks for types from a file's real path upwards, and would find the project's own.
const installed = join(directory, 'node_modules', manifest.name)
const packed = execFileSync('npm', ['pack', '--ignore-scripts', '--json', '--pack-destination', directory], { cwd: ROOT, env: plainEnvironment, encoding: 'utf8' })
const [{ filename, files }] = JSON.parse(packed) as [{ filename: string, files: Array<{ path: string }> }]
mkdirSync(installed, { recursive: true })
execFileSync('tar', ['-xzf', join(directory, filename), '--strip-components=1', '-C', installed])

const CONSUMER = `
import Fastify from 'fastify'
import spanzaRelay, { errors, proxyProtocol, type HubStats, type PeerInfo } from '${manifest.name}'
import { connect, UdpSidecar, type RelayConnection } from '${manifest.name}/client'
import relayAdmin from '${manifest.name}/admin'
import { relayMetrics } from '${manifest.name}/metrics'
import { Registry } from 'prom-client'
import type { Duplex } from 'node:stream'

const app = Fastify({ serverFactory: proxyProtocol({ from: ['127.0.0.1'] }) })
await app.register(spanzaRelay, { path: '/relay', maxPeers: 3 })
await app.register(relayAdmin, { prefix: '/admin', insecure: true })
relayMetrics(app.relayHub, new Registry())
app.relay<{ Params: { network: string } }>('/relay/:network', {
  identify: (request) => ({ channel: request.params.network })
})
const peers: PeerInfo[] = app.relayHub.peers()
const stats: HubStats = app.relayHub.stats()
const connection: RelayConnection = await connect('http://127.0.0.1:1', {})
const stream: Duplex = await connect('http://127.0.0.1:1', { framings: 'raw' })
const sidecar = new UdpSidecar({ url: 'http://127.0.0.1:1' })
const code: string = new errors.FST_RELAY_CLOSING().code
export { peers, stats, connection, stream, sidecar, code }

// @ts-expect-error what is internal stays inside
app.relayHub.attach
`

const compilers: Record<string, object> = {
  node16: { module: 'node16', moduleResolution: 'node16' },
  nodenext: { module: 'nodenext', moduleResolution: 'nodenext' },
  bundler: { module: 'esnext', moduleResolution: 'bundler' }
}

t.test('a strict project without skipLibCheck compiles with what the package brings along', async (t) => {
  t.setTimeout(180_000)
  // Only what npm would install: nothing of the development dependencies but the types of Node.
  const available = [
    ...Object.keys(manifest.dependencies), ...Object.keys(manifest.peerDependencies), '@types/node'
  ]
  for (const name of available) {
    const link = join(directory, 'node_modules', name)
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules', name), link)
  }
  writeFileSync(join(directory, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(directory, 'consumer.ts'), CONSUMER)
  await Promise.all(Object.entries(compilers).map(async ([name, compilerOptions]) => {
    const project = join(directory, `${name}.json`)
    writeFileSync(project, JSON.stringify({
      compilerOptions: {
        ...compilerOptions,
        target: 'es2023',
        lib: ['es2023'],
        types: ['node'],
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        noEmit: true
      },
      files: ['consumer.ts']
    }))
    const said = await new Promise<string>((resolve) => {
      execFile(process.execPath, [join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', project], { env: plainEnvironment }, (_error, stdout) => resolve(stdout))
    })
    t.equal(said, '', name)
  }))
})

t.test('the packed declarations show nothing that is internal', (t) => {
  const hub = readFileSync(join(installed, 'dist/server/relay-hub.d.ts'), 'utf8')
  t.match(hub, /disconnect: \(/)
  t.notMatch(hub, /\b(?:attach|checkRoom|close|refused|handshakeEnded)\(/)
  for (const { path } of files.filter(({ path }) => path.endsWith('.d.ts'))) {
    t.notMatch(readFileSync(join(installed, path), 'utf8'), '@internal', path)
  }
  t.end()
})

t.test('what package.json names is packed, and no sources or tests', (t) => {
  const paths = files.map(({ path }) => path)
  const named = [
    ...Object.values<string | Record<string, string>>(manifest.exports).flatMap((entry) => typeof entry === 'string' ? entry : Object.values(entry)),
    ...Object.values<string>(manifest.bin)
  ].map((path) => path.replace(/^\.\//, ''))
  for (const path of named) t.ok(paths.includes(path), path)
  t.same(paths.filter((path) => !/^(?:dist\/|docs\/|LICENSE$|README\.md$|CHANGELOG\.md$|package\.json$)/.test(path)), [])
  t.end()
})

t.test('the oldest Node that the dependencies take is the one that engines names', (t) => {
  const floor = (range: string): number[] => /(\d+)(?:\.(\d+))?/.exec(range)!.slice(1).map((part) => Number(part ?? 0))
  const [major, minor] = floor(manifest.engines.node)
  for (const name of Object.keys(manifest.dependencies)) {
    const range: string | undefined = JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8')).engines?.node
    if (range === undefined) continue
    const [itsMajor, itsMinor] = floor(range)
    t.ok(major! > itsMajor! || (major === itsMajor && minor! >= itsMinor!), `${name} wants ${range}`)
  }
  t.end()
})
