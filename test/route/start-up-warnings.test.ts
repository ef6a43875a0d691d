import cluster from 'node:cluster'
import { Writable } from 'node:stream'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import spanzaRelay from '../../lib/index.ts'

const hook = async (): Promise<void> => {}

/** The warnings of an app's start. */
async function warningsOf (setUp: (app: FastifyInstance) => unknown): Promise<Array<{ msg: string, paths?: string[], worker?: number }>> {
  const lines: string[] = []
  const stream = new Writable({ write: (chunk, _encoding, done) => { lines.push(String(chunk)); done() } })
  const app = Fastify({ logger: { level: 'warn', stream } })
  await setUp(app)
  await app.ready()
  await app.close()
  return lines.map((line) => JSON.parse(line))
}

t.test('relay routes without a guard and without identify are named, once and together', async (t) => {
  const warnings = await warningsOf(async (app) => {
    await app.register(spanzaRelay, { path: '/first' })
    app.relay('/second/:network', { hosts: ['a'], onSend: async () => {} })
    await app.register(async (scope) => {
      scope.relay('/', { target: 'tcp://127.0.0.1:1' })
      scope.relay('/guarded', { onRequest: hook })
    }, { prefix: '/child' })
    app.get('/rest', async () => 'rest')
  })
  t.match(warnings, [{ paths: ['/first', '/second/:network', '/child'], msg: /open: true/ }])
  t.equal(warnings.length, 1)
})

const guarded: Record<string, (app: FastifyInstance) => unknown> = {
  'open: true': (app) => app.relay('/relay', { open: true }),
  identify: (app) => app.relay('/relay', { identify: () => ({}) }),
  'no relay route': () => {},
  'a hook of the instance, added later': (app) => {
    app.relay('/relay')
    app.addHook('onRequest', hook)
  },
  'a hook of an outer scope': (app) => {
    app.addHook('preValidation', hook)
    app.register(async (scope) => { scope.relay('/relay') })
  },
  'a hook that another plugin adds to the route': (app) => {
    app.addHook('onRoute', (route) => { route.preHandler = [hook] })
    app.relay('/relay')
  }
}
for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler'] as const) {
  guarded[`${name} of the route`] = (app) => app.relay('/relay', { [name]: hook })
  guarded[`${name} of the route, in a list`] = (app) => app.relay('/relay', { [name]: [hook] })
  guarded[`${name} of the scope`] = (app) => {
    app.addHook(name, hook as never)
    app.relay('/relay')
  }
}
for (const [what, setUp] of Object.entries(guarded)) {
  t.test(`nothing is said about ${what}`, async (t) => {
    t.same(await warningsOf(async (app) => {
      await app.register(spanzaRelay)
      await setUp(app)
    }), [])
  })
}

t.test('a hook in a sibling scope guards nothing here', async (t) => {
  t.match(await warningsOf(async (app) => {
    await app.register(spanzaRelay)
    app.register(async (scope) => { scope.addHook('onRequest', hook) })
    app.register(async (scope) => { scope.relay('/relay') })
  }), [{ paths: ['/relay'] }])
})

t.test('a worker of node:cluster says that it has a hub of its own', async (t) => {
  const isWorker = Object.getOwnPropertyDescriptor(cluster, 'isWorker')!
  Object.defineProperty(cluster, 'isWorker', { ...isWorker, value: true })
  t.teardown(() => Object.defineProperty(cluster, 'isWorker', isWorker))
  const start = async (options: object) => await warningsOf(async (app) => {
    await app.register(websocket)
    await app.register(spanzaRelay, { path: '/relay', open: true, ...options })
    await app.register(spanzaRelay, { path: '/second', open: true, ...options })
  })
  const warnings = await start({})
  t.match(warnings, [{ msg: /never meet; see docs\/several-processes\.md/ }])
  t.equal(warnings.length, 1)
  t.same(await start({ target: 'tcp://127.0.0.1:1' }), [], 'tunnels to a target meet nobody')
})
