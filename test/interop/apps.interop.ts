import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { execFileSync } from 'node:child_process'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import ts from 'typescript'
import { WebSocket } from 'ws'
import { freePort } from '../helpers/ports.ts'
import { plainEnvironment, Program } from '../helpers/program.ts'
import { RawClient, requestText, upgradeText, type RequestParts } from '../helpers/raw-client.ts'
import { testJoined } from '../helpers/relay-app.ts'
import { figure, missingPrograms } from './interop.ts'

// Apps as others write them, with a relay route: it is reached, their own upgrades and REST are as before, and they close.

const folders: Record<string, string> = JSON.parse(process.env['INTEROP_APPS'] ?? '{}')
const ORDERS = ['before', 'after']
/** From the signal until the app has closed its tunnels and ended; the relay's own deadline is 5 s. */
const CLOSE_MS = 20_000

interface App {
  program: Program
  server: FastifyInstance
  port: number
}

for (const versioning of ['header', 'uri', 'media type', 'custom']) {
  t.test(`NestJS, versions by ${versioning}`, { skip: missingPrograms('nestjs') }, async (t) => {
    const folder = workFolder(t, 'nestjs')
    const { outputText } = ts.transpileModule(readFileSync(appFile('nest.ts.txt'), 'utf8'), {
      compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, experimentalDecorators: true, emitDecoratorMetadata: true }
    })
    writeFileSync(join(folder, 'app.mjs'), outputText)
    const app = await start(t, [join(folder, 'app.mjs')], { VERSIONING: versioning })
    const version = (value: string): RequestParts => versioning === 'media type' ? { headers: { Accept: `application/json;v=${value}` } } : { headers: { 'X-Version': value } }
    const ofVersion = (value: string, path: string): [string, RequestParts] => versioning === 'uri' ? [`/v${value}${path}`, {}] : [path, version(value)]
    const rest: Array<[string, RequestParts, string]> = [
      ['/health', {}, 'well'], [...ofVersion('1', '/cats'), 'old cats'], [...ofVersion('v2', '/cats'), 'old cats'], [...ofVersion('3', '/cats'), 'new cats'],
      [...ofVersion('1', '/cats/named/tom'), 'a cat']
    ]
    await testRest(t, app, rest)
    await testTunnels(t, app, '/relay/home')
    if (versioning !== 'uri') {
      for (const value of ['4', 'v5']) await testTunnels(t, app, `/cats/relay/${value}`, version(value))
      t.equal(await statusOf(t, app, '/cats/relay/x', version('1')), 404, 'a version that the relay route has not')
    }
    await testRest(t, app, rest)
    await testClosing(t, app, '/relay/last')
    figure(t, `NestJS ${versionOf('nestjs', '@nestjs/core')}`, `versions by ${versioning}`, 'relay and REST reached, closed')
  })
}

const generated = { CommonJS: [], ESM: ['--esm'], TypeScript: ['--lang=ts'] }

for (const [kind, args] of Object.entries(generated)) {
  t.test(`fastify-cli with autoload, ${kind}`, { skip: missingPrograms('fastify-cli') }, async (t) => {
    const folder = join(workFolder(t, 'fastify-cli'), 'app')
    const modules = join(folders['fastify-cli']!, 'node_modules')
    const cli = join(modules, 'fastify-cli', 'cli.js')
    run(process.execPath, [cli, 'generate', folder, ...args])
    const isTypeScript = kind === 'TypeScript'
    const [source, extension] = isTypeScript ? [join(folder, 'src'), 'ts'] : [folder, 'js']
    const write = (path: string, text: string): void => writeFileSync(join(source, `${path}.${extension}`), text)
    if (kind === 'CommonJS') {
      write('plugins/relay', "module.exports = require('fastify-plugin')(async (fastify) => { await fastify.register(require('fastify-spanza-relay')) })")
    } else {
      write('plugins/relay', "import fp from 'fastify-plugin'\nimport spanzaRelay from 'fastify-spanza-relay'\n\nexport default fp(async (fastify) => { await fastify.register(spanzaRelay) })\n")
    }
    // Beside the example's own, as a folder of its own: autoload makes its name a prefix.
    cpSync(join(source, 'routes/example'), join(source, 'routes/vpn'), { recursive: true })
    write('routes/vpn/index', kind === 'CommonJS'
      ? "module.exports = async (fastify) => { fastify.relay('/', { open: true }) }"
      : isTypeScript
        ? "import { FastifyPluginAsync } from 'fastify'\nimport 'fastify-spanza-relay'\n\nconst vpn: FastifyPluginAsync = async (fastify) => { fastify.relay('/', { open: true }) }\n\nexport default vpn\n"
        : "export default async (fastify) => { fastify.relay('/', { open: true }) }")
    if (isTypeScript) run(process.execPath, [join(modules, 'typescript', 'bin', 'tsc'), '-p', folder, '--rootDir', join(folder, 'src')], folder)
    const port = await freePort()
    const app = await start(t, [cli, 'start', '--port', String(port), '--address', '127.0.0.1', '--log-level', 'info', join(folder, isTypeScript ? 'dist/app.js' : 'app.js')],
      {}, folder, port)
    const rest: Array<[string, RequestParts, string]> = [['/', {}, '{"root":true}'], ['/example', {}, 'this is an example']]
    await testRest(t, app, rest)
    for (const path of ['/vpn', '/vpn/']) await testTunnels(t, app, path)
    await testRest(t, app, rest)
    await testClosing(t, app, '/vpn')
    figure(t, `fastify-cli ${versionOf('fastify-cli', 'fastify-cli')}`, `@fastify/autoload ${versionOf('fastify-cli', '@fastify/autoload')}, ${kind}`, 'relay reached by both URLs, closed')
  })
}

for (const order of ORDERS) {
  t.test(`socket.io, attached ${order} the relay`, { skip: missingPrograms('socket.io') }, async (t) => {
    const app = await startCopy(t, 'socket.io', 'socket-io.js', { ORDER: order })
    const { io } = createRequire(join(folders['socket.io']!, 'package.json'))('socket.io-client')
    const socket = io(`http://127.0.0.1:${app.port}`, { transports: ['websocket'], reconnection: false })
    t.teardown(() => socket.close())
    await new Promise((resolve, reject) => socket.on('connect', resolve).on('connect_error', reject))
    const open = await openPair(t, app, '/relay/home')
    // Engine.IO destroys what it takes for nobody's: after this upgrade has gone, ours would have, too.
    const nobodys = await RawClient.dial(t, app.server)
    await nobodys.send(upgradeText('/nowhere'))
    await nobodys.closed
    await testJoined(t, ...open)
    t.equal(await socket.emitWithAck('echo', 'hello'), 'hello')
    const second = io(`http://127.0.0.1:${app.port}`, { transports: ['polling', 'websocket'], reconnection: false, forceNew: true })
    t.teardown(() => second.close())
    await new Promise((resolve) => second.io.on('open', () => second.io.engine.once('upgrade', resolve)))
    t.equal(await second.emitWithAck('echo', 'upgraded'), 'upgraded')
    await testRest(t, app, [['/rest', {}, 'rest']], false)
    await testClosing(t, app, '/relay/last')
    figure(t, `socket.io ${versionOf('socket.io', 'socket.io')}`, `attached ${order} the relay`, 'WebSockets and tunnels, closed')
  })

  t.test(`Vite's dev server, made ${order} the relay`, { skip: missingPrograms('vite') }, async (t) => {
    const app = await startCopy(t, 'vite', 'vite.js', { ORDER: order })
    const token = (await app.program.line((line) => line.startsWith('token '), 1000)).slice(6)
    const hmr = await openWebSocket(t, app, `/?token=${token}`, 'vite-hmr')
    t.match(await hmr.next(), { type: 'connected' })
    await testTunnels(t, app, '/relay/home')
    await testRest(t, app, [['/rest', {}, 'rest']], false)
    hmr.socket.send(JSON.stringify({ type: 'ping' }))
    const second = await openWebSocket(t, app, `/?token=${token}`, 'vite-hmr')
    t.match(await second.next(), { type: 'connected' }, 'and after tunnels')
    t.equal(hmr.socket.readyState, WebSocket.OPEN)
    await testClosing(t, app, '/relay/last')
    figure(t, `Vite ${versionOf('vite', 'vite')}`, `HMR on the same server, made ${order} the relay`, 'HMR and tunnels, closed')
  })

  t.test(`mercurius, registered ${order} the relay`, { skip: missingPrograms('mercurius') }, async (t) => {
    const app = await startCopy(t, 'mercurius', 'mercurius.js', { ORDER: order })
    const subscription = await openWebSocket(t, app, '/graphql', 'graphql-transport-ws')
    subscription.socket.send(JSON.stringify({ type: 'connection_init' }))
    t.match(await subscription.next(), { type: 'connection_ack' })
    subscription.socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: 'subscription { added }' } }))
    await testTunnels(t, app, '/relay/home')
    await testRest(t, app, [['/rest', {}, 'rest']])
    // Of an offer of h2c there, @fastify/websocket takes a 400 for the answer, with a relay and without.
    await testRest(t, app, [['/graphql?query={last}', {}, '{"data":{"last":1}}']], false)
    const received = subscription.next()
    // The subscription is made in the background: asked until it is there.
    const asking = setInterval(() => { ask(app, '/graphql', { query: 'mutation { add }' }).catch(() => {}) }, 50)
    t.match(await received, { id: '1', type: 'next', payload: { data: { added: 7 } } })
    clearInterval(asking)
    await testClosing(t, app, '/relay/last')
    figure(t, `mercurius ${versionOf('mercurius', 'mercurius')}`, `registered ${order} the relay`, 'subscriptions and tunnels, closed')
  })
}

function appFile (name: string): string {
  return fileURLToPath(new URL(`apps/${name}`, import.meta.url))
}

function versionOf (app: string, name: string): string {
  return JSON.parse(readFileSync(join(folders[app]!, 'node_modules', name, 'package.json'), 'utf8')).version
}

/** A folder that finds what is installed for the app. */
function workFolder (t: Test, app: string): string {
  const folder = mkdtempSync(join(folders[app]!, 'work-'))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

function run (command: string, args: string[], cwd?: string): void {
  try {
    execFileSync(command, args, { encoding: 'utf8', stdio: 'pipe', env: plainEnvironment, ...(cwd !== undefined && { cwd }) })
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string, stderr: string }
    throw new Error(`${command} ${args.join(' ')}\n${stdout}\n${stderr}`)
  }
}

async function startCopy (t: Test, app: string, file: string, env: NodeJS.ProcessEnv): Promise<App> {
  const folder = workFolder(t, app)
  cpSync(appFile(file), join(folder, file))
  return await start(t, [join(folder, file)], env)
}

/** @param port where the app cannot be told to say it */
async function start (t: Test, args: string[], env: NodeJS.ProcessEnv, cwd?: string, port?: number): Promise<App> {
  const program = new Program(process.execPath, args, { name: 'the app', env, ...(cwd !== undefined && { cwd }) })
  t.teardown(() => program.stop())
  const line = await program.line((line) => port === undefined ? line.startsWith('listening ') : line.includes('Server listening at'), 60_000)
  const found = port ?? Number(line.split(' ')[1])
  // As far as a client looks at it.
  return { program, port: found, server: { server: { address: () => ({ port: found }) } } as unknown as FastifyInstance }
}

async function statusOf (t: Test, { server }: App, path: string, parts: RequestParts = {}): Promise<number> {
  const client = await RawClient.dial(t, server)
  await client.send(upgradeText(path, parts))
  return (await client.answer()).statusCode
}

async function openPair (t: Test, { server }: App, path: string, parts?: RequestParts): Promise<[RawClient, RawClient]> {
  const clients = [await RawClient.dial(t, server), await RawClient.dial(t, server)] as [RawClient, RawClient]
  for (const client of clients) await client.upgrade(t, path, parts)
  return clients
}

async function testTunnels (t: Test, app: App, path: string, parts?: RequestParts): Promise<void> {
  const pair = await openPair(t, app, path, parts)
  await testJoined(t, ...pair)
  for (const { socket } of pair) socket.end()
  await Promise.all(pair.map(async ({ closed }) => await closed))
}

/** Requests with and without the offer of another protocol, which a relay that is in the way would take for its own. */
async function testRest (t: Test, { server }: App, rows: Array<[string, RequestParts, string]>, offers = true): Promise<void> {
  for (const [path, parts, body] of rows) {
    for (const headers of [{}, ...(offers ? [{ Connection: 'Upgrade', Upgrade: 'h2c' }] : [])]) {
      const client = await RawClient.dial(t, server)
      await client.send(requestText(path, { ...parts, headers: { ...parts.headers, ...headers } }))
      const answer = await client.answer()
      t.match(answer, { statusCode: 200, body }, `${path} ${JSON.stringify(headers)}`)
      client.socket.destroy()
    }
  }
}

/** With tunnels open, the app ends when it is told to, and says so to the tunnels. */
async function testClosing (t: Test, app: App, path: string): Promise<void> {
  const pair = await openPair(t, app, path)
  await testJoined(t, ...pair)
  app.program.child.kill('SIGTERM')
  await Promise.all(pair.map(async ({ closed }) => await closed))
  await app.program.end(CLOSE_MS)
  t.not(app.program.child.signalCode, 'SIGKILL')
}

async function ask ({ port }: App, path: string, body: object): Promise<unknown> {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
  return await answer.json()
}

async function openWebSocket (t: Test, { port }: App, path: string, protocol: string) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, protocol)
  t.teardown(() => socket.terminate())
  const messages: unknown[] = []
  let wake = (): void => {}
  socket.on('message', (data) => {
    messages.push(JSON.parse(String(data)))
    wake()
  })
  await new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject))
  return {
    socket,
    /** The next message. */
    next: async (): Promise<unknown> => {
      while (messages.length === 0) await new Promise<void>((resolve) => { wake = resolve })
      return messages.shift()
    }
  }
}
