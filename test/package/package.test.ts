import { execFile, execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { subset } from 'semver'
import t from 'tap'
import { manifest, PackedPackage, ROOT } from '../helpers/packed.ts'
import { plainEnvironment } from '../helpers/program.ts'

// The package as npm packs it, and a strict TypeScript project that uses it. Needs `npm run build` first.

t.setTimeout(180_000) // The compilers take their time on a busy machine.

const packed = new PackedPackage()
const { folder, paths } = packed
t.teardown(() => packed.remove())
writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')

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

const resolutions: Record<string, object> = {
  node16: { module: 'node16', moduleResolution: 'node16' },
  nodenext: { module: 'nodenext', moduleResolution: 'nodenext' },
  bundler: { module: 'esnext', moduleResolution: 'bundler' }
}
/** All ways to find modules with the newest, which is soon done. */
const compilers = [
  { compiler: 'TypeScript 7', path: 'node_modules/@typescript/native/bin/tsc', finds: Object.keys(resolutions) },
  { compiler: 'TypeScript 6', path: 'node_modules/typescript/bin/tsc6', finds: ['nodenext'] }
]

t.test('a strict project without skipLibCheck compiles with what the package brings along', async (t) => {
  t.setTimeout(180_000)
  writeFileSync(join(folder, 'consumer.ts'), CONSUMER)
  for (const [name, compilerOptions] of Object.entries(resolutions)) {
    writeFileSync(join(folder, `${name}.json`), JSON.stringify({
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
  }
  const runs = compilers.flatMap(({ finds, ...compiler }) => finds.map((resolution) => ({ ...compiler, resolution })))
  await Promise.all(runs.map(async ({ compiler, path, resolution }) => {
    const said = await new Promise<string>((resolve) => {
      // By way of `env`: tap loads itself into each Node that a test starts, and TypeScript 7 does not take that.
      execFile('env', ['NODE_OPTIONS=', process.execPath, join(ROOT, path), '-p', join(folder, `${resolution}.json`)],
        (error, stdout, stderr) => resolve(stdout + stderr + (error === null ? '' : error.message)))
    })
    t.equal(said, '', `${compiler}, ${resolution}`)
  }))
})

t.test('the admin page has its chart without a package beside it, and the terms under which it may be given away', (t) => {
  const program = `
    import Fastify from 'fastify'
    import spanzaRelay from '${manifest.name}'
    import relayAdmin from '${manifest.name}/admin'
    const app = Fastify()
    await app.register(spanzaRelay)
    await app.register(relayAdmin, { prefix: '/admin', insecure: true })
    const answers = {}
    for (const name of ['', 'uPlot.iife.min.js', 'uPlot.min.css', 'uPlot.LICENSE.txt']) {
      const { statusCode, body } = await app.inject('/admin/' + name)
      answers[name] = { statusCode, body }
    }
    console.log(JSON.stringify(answers))
    await app.close()`
  const printed = execFileSync(process.execPath, ['--input-type=module', '--eval', program], { cwd: folder, env: plainEnvironment, encoding: 'utf8' })
  const answers: Record<string, { statusCode: number, body: string }> = JSON.parse(printed)
  for (const [name, { statusCode }] of Object.entries(answers)) t.equal(statusCode, 200, name)
  for (const name of ['uPlot.iife.min.js', 'uPlot.min.css']) {
    t.match(answers['']!.body, `"${name}"`)
    t.equal(answers[name]!.body, readFileSync(join(ROOT, 'node_modules/uplot/dist', name), 'utf8'), name)
  }
  t.match(answers['uPlot.LICENSE.txt']!.body, /Copyright .* Leon Sorokin\s+Permission is hereby granted/)
  t.notOk(paths.some((path) => path.includes('node_modules')))
  t.end()
})

t.test('what package.json names is packed, and no sources or tests', (t) => {
  const named = [
    ...Object.values<string | Record<string, string>>(manifest.exports).flatMap((entry) => typeof entry === 'string' ? entry : Object.values(entry)),
    ...Object.values<string>(manifest.bin)
  ].map((path) => path.replace(/^\.\//, ''))
  for (const path of named) t.ok(paths.includes(path), path)
  t.same(paths.filter((path) => !/^(?:dist\/|docs\/|LICENSE$|README\.md$|CHANGELOG\.md$|package\.json$)/.test(path)), [])
  t.end()
})

t.test('every Node that engines takes is taken by all that is installed with the package', (t) => {
  interface Locked { dev?: boolean, engines?: { node?: string } }
  const { packages }: { packages: Record<string, Locked> } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'))
  const installed = Object.entries(packages).filter(([path, { dev }]) => path !== '' && dev !== true)
  const names = installed.map(([path]) => path.replace(/^.*node_modules\//, ''))
  for (const name of Object.keys(manifest.dependencies)) t.ok(names.includes(name), name)
  for (const [path, { engines }] of installed) {
    t.ok(subset(manifest.engines.node, engines?.node ?? '*'), `${path} wants ${engines?.node ?? 'any'}`)
  }
  t.end()
})
