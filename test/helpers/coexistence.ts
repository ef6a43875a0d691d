import type { AddressInfo, Socket } from 'node:net'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import { WebSocket, type ClientOptions } from 'ws'
import spanzaRelay, { type RelayRouteOptions } from '../../lib/index.ts'
import { RawClient, requestText, upgradeText, type DialOptions, type RequestParts } from './raw-client.ts'
import { openBare, startListening, testJoined } from './relay-app.ts'

/** What is registered in a scope, one after the other. */
type Register = (scope: FastifyInstance) => unknown

export interface Order {
  /** What the relay routes' URLs begin with. */
  relayPrefix: string
  /** What the other plugin's URLs begin with. */
  otherPrefix: string
  combine: (app: FastifyInstance, relay: Register, other: Register) => Promise<void>
}

/** The ways in which an app can have this plugin and another. */
export const orders: Record<string, Order> = {
  'before the relay': {
    relayPrefix: '',
    otherPrefix: '',
    combine: async (app, relay, other) => { await other(app); await relay(app) }
  },
  'after the relay': {
    relayPrefix: '',
    otherPrefix: '',
    combine: async (app, relay, other) => { await relay(app); await other(app) }
  },
  'before a relay in a child scope': {
    relayPrefix: '/child',
    otherPrefix: '',
    combine: async (app, relay, other) => { await other(app); await inChild(app, '/child', relay) }
  },
  'after a relay in a child scope': {
    relayPrefix: '/child',
    otherPrefix: '',
    combine: async (app, relay, other) => { await inChild(app, '/child', relay); await other(app) }
  },
  'in a child scope, before the relay': {
    relayPrefix: '',
    otherPrefix: '/child',
    combine: async (app, relay, other) => { await inChild(app, '/child', other); await relay(app) }
  },
  'in a child scope, after the relay': {
    relayPrefix: '',
    otherPrefix: '/child',
    combine: async (app, relay, other) => { await relay(app); await inChild(app, '/child', other) }
  },
  'in a scope beside that of the relay': {
    relayPrefix: '/one',
    otherPrefix: '/two',
    combine: async (app, relay, other) => { await inChild(app, '/one', relay); await inChild(app, '/two', other) }
  }
}

async function inChild (app: FastifyInstance, prefix: string, register: Register): Promise<void> {
  await app.register(async (scope) => { await register(scope) }, { prefix })
}

export interface Pair {
  /** The app with both. */
  app: FastifyInstance
  /** The scope in which the relay is. */
  relay: FastifyInstance
  /** The same app without the relay. */
  without: FastifyInstance
}

export interface CoexistenceOptions {
  server?: FastifyServerOptions
  /** Of the relay route. */
  route?: RelayRouteOptions
}

/** Starts an app with the relay and what `other` registers, in this order, and the same app without the relay. */
export async function startPair (t: Test, order: Order, other: Register, { server = {}, route = {} }: CoexistenceOptions = {}): Promise<Pair> {
  const start = async (relay: Register): Promise<FastifyInstance> => {
    const app = Fastify(server)
    await order.combine(app, relay, other)
    app.get('/rest', async (request) => ({ upgrade: request.headers.upgrade }))
    app.post('/rest', async (request) => request.body)
    await startListening(t, app)
    endConnections(t, app)
    return app
  }
  let relay: FastifyInstance
  const app = await start(async (scope) => {
    relay = scope
    await scope.register(spanzaRelay)
    scope.relay('/relay/:channel', route)
  })
  return { app, relay: relay!, without: await start(() => {}) }
}

/**
 * Other plugins leave connections open for good, with the relay or without: @fastify/websocket in a child scope those
 * that asked for an upgrade outside of it. No `close` would return.
 */
function endConnections (t: Test, app: FastifyInstance): void {
  const sockets = new Set<Socket>()
  app.server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  t.teardown(() => { for (const socket of sockets) socket.destroy() })
}

let channels = 0

/** Tests two tunnels in a channel of their own; the route has the channel as its last parameter. */
export async function testTunnels (t: Test, app: FastifyInstance, prefix = '', parts: RequestParts = {}, dial: DialOptions = {}): Promise<void> {
  const path = `${prefix}/relay/${++channels}`
  await testJoined(t, await openBare(t, app, path, parts, dial), await openBare(t, app, path, parts, dial))
}

const BODY = JSON.stringify({ text: 'x'.repeat(20_000) })
const json = { 'Content-Type': 'application/json' }
const offer = { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQCAAAAAAIAAAAA' }
const webSocket = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': 'AAAAAAAAAAAAAAAAAAAAAA==' }
const chunked = `5\r\n${BODY.slice(0, 5)}\r\n${(BODY.length - 5).toString(16)}\r\n${BODY.slice(5)}\r\n0\r\n\r\n`

/** What REST clients send, some of them again and again on one connection. */
const conversations: Record<string, string[]> = {
  'GET and POST on one connection': [
    requestText('/rest'),
    requestText('/rest', { method: 'POST', headers: { ...json, 'Content-Length': String(BODY.length) }, body: BODY }),
    requestText('/rest', { method: 'POST', headers: { ...json, 'Transfer-Encoding': 'chunked' }, body: chunked }),
    requestText('/rest')
  ],
  'a GET that offers h2c': [requestText('/rest', { headers: offer })],
  'a POST that offers h2c': [requestText('/rest', { method: 'POST', headers: { ...json, ...offer, 'Content-Length': String(BODY.length) }, body: BODY })],
  'a chunked POST that offers h2c': [requestText('/rest', { method: 'POST', headers: { ...json, ...offer, 'Transfer-Encoding': 'chunked' }, body: chunked })],
  'a GET that asks for a WebSocket': [requestText('/rest', { headers: webSocket })],
  'an upgrade to a path that is not there': [upgradeText('/nowhere')],
  'a WebSocket for a path that is not there': [requestText('/nowhere', { headers: webSocket })]
}

/** What changes from one answer to the next. */
const changing = /^(?:date|x-ratelimit-(?:remaining|reset)|sec-websocket-accept): .*\r\n/gim

async function talk (t: Test, app: FastifyInstance, requests: string[], dial: DialOptions): Promise<string[]> {
  const client = await RawClient.dial(t, app, dial)
  const answers: string[] = []
  try {
    for (const request of requests) {
      await client.send(request)
      const { head, body } = await client.answer()
      answers.push(head.replace(changing, '') + body)
    }
  } catch (error) {
    // The server has closed the connection without an answer.
    answers.push(`no answer: ${(error as Error).message.split(',')[0]}`)
  }
  client.socket.destroy()
  return answers
}

/** Tests that what is not the relay's is answered as without it, whatever the other plugin makes of it. */
export async function testRestUnchanged (t: Test, { app, without }: Pick<Pair, 'app' | 'without'>, dial: DialOptions = {}): Promise<void> {
  for (const [what, requests] of Object.entries(conversations)) {
    t.same(await talk(t, app, requests, dial), await talk(t, without, requests, dial), `${what}, as without the relay`)
  }
  const [[plain]] = [await talk(t, app, [requestText('/rest')], dial)]
  t.match(plain, /^HTTP\/1\.1 200 /, 'and it is answered')
}

/** Says `hello` through a WebSocket; what comes back, or the status of the refusal. */
export async function echo (app: FastifyInstance, path: string, options: ClientOptions = {}): Promise<string> {
  const { port } = app.server.address() as AddressInfo
  const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, options)
  return await new Promise((resolve, reject) => {
    socket.on('open', () => socket.send('hello'))
    socket.on('message', (message) => {
      socket.close()
      socket.on('close', () => resolve(String(message)))
    })
    socket.on('unexpected-response', (_request, response) => {
      socket.on('error', () => {})
      socket.terminate()
      resolve(String(response.statusCode))
    })
    socket.on('error', reject)
  })
}
