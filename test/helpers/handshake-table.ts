import { once } from 'node:events'
import { STATUS_CODES } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import type { HubStats, ProtocolName, RefusalInfo, RelayErrorCode } from '../../lib/index.ts'
import { RawClient, requestText, type DialOptions } from './raw-client.ts'
import { startApp, type AppOptions } from './relay-app.ts'

/** A table of handshakes: what a client sends, byte for byte, what it is answered, and what becomes of the connection. */
export type Row = [title: string, sent: string | Buffer, expected: Expected]

/** Tests an answer that has not been read yet. */
export type Expected = (exchange: Exchange) => Promise<void>

/** One row under way. */
export interface Exchange {
  t: Test
  app: FastifyInstance
  client: RawClient
  /** The counters before anything was sent. */
  before: Counters
  /** The refusals that are told. */
  refusals: RefusalInfo[]
}

type Counters = Pick<HubStats, 'attached' | 'refused'>

/** Room for a table's many handshakes from one address. */
export const roomy = { handshakesPerSecond: 10_000, channelHandshakesPerSecond: 10_000, clientHandshakesPerSecond: 10_000 }

/** Starts an app with a relay route for tables, unless `setUp` adds others, and with a REST route that shows that a connection is still of use. */
export async function startTable (
  t: Test, setUp: (app: FastifyInstance) => unknown = (app) => app.relay('/relay'), { relay, ...options }: AppOptions = {}
): Promise<FastifyInstance> {
  return await startApp(t, async (app) => {
    app.get('/alive', async () => 'alive')
    await setUp(app)
  }, { ...options, relay: { ...roomy, ...relay } })
}

/** Tests each row on a connection of its own, one after the other. */
export async function testTable (t: Test, app: FastifyInstance, rows: Row[], dial?: DialOptions): Promise<void> {
  for (const [title, sent, expected] of rows) {
    await t.test(title, async (t) => {
      const refusals: RefusalInfo[] = []
      const note = (refusal: RefusalInfo): void => { refusals.push(refusal) }
      app.relayHub.on('refuse', note)
      t.teardown(() => app.relayHub.off('refuse', note))
      const before = countersOf(app)
      const client = await RawClient.dial(t, app, dial)
      await client.send(sent)
      await expected({ t, app, client, before, refusals })
    })
  }
}

/** Lines of a request's head, each ended by CR LF, and the empty line behind them. */
export function lines (...each: string[]): string {
  return [...each, '', ''].join('\r\n')
}

/** A tunnel: the 101 is these bytes and no others. Headers are those behind `Upgrade`. */
export function switched (protocol: ProtocolName = 'spanza', ...headers: string[]): Expected {
  return switchedBy('Connection: Upgrade', `Upgrade: ${protocol}`, ...headers)
}

/** The same for a WebSocket, by the value that belongs to its key (RFC 6455, section 4.2.2). */
export function switchedToWebSocket (accept: string): Expected {
  return switchedBy('Upgrade: websocket', 'Connection: Upgrade', `Sec-WebSocket-Accept: ${accept}`, 'Spanza-Max-Packet: 2048')
}

function switchedBy (...headers: string[]): Expected {
  return async ({ t, app, client, before }) => {
    const { head } = await client.head()
    t.equal(head, lines('HTTP/1.1 101 Switching Protocols', ...headers))
    t.equal(client.unread, '', 'nothing behind it')
    t.same(countersOf(app), { ...before, attached: before.attached + 1 }, 'one tunnel')
    if (app.relayHub.stats().peers === 0) return
    const detached = once(app.relayHub, 'detach')
    client.socket.destroy()
    // The next row begins with an empty channel.
    await detached
  }
}

/**
 * A refusal of the relay: a JSON answer with these headers and no others, after which the connection closes in good
 * order; told and counted once.
 * @param headers further ones, or others than usual
 */
export function refused (statusCode: number, code: RelayErrorCode, message?: string, headers: Record<string, string> = {}): Expected {
  return async ({ t, app, client, before, refusals }) => {
    const answer = await client.answer()
    t.equal(statusLineOf(answer.head), `HTTP/1.1 ${statusCode} ${STATUS_CODES[statusCode]}`)
    if (answer.statusCode !== statusCode) return
    t.match(answer.headers.date, / GMT$/)
    const { date: _, ...others } = answer.headers
    t.same(others, {
      connection: 'close',
      'content-type': 'application/json; charset=utf-8',
      'content-length': String(Buffer.byteLength(answer.body)),
      ...headers
    }, 'the headers')
    const { message: told, ...body } = JSON.parse(answer.body)
    t.same(body, { statusCode, code, error: STATUS_CODES[statusCode] }, 'the content')
    if (message !== undefined) t.equal(told, message)
    await testClosed(t, client)
    t.match(refusals, [{ statusCode, code }], 'told once')
    t.same(countersOf(app), { ...before, refused: { ...before.refused, [code]: (before.refused[code] ?? 0) + 1 } }, 'counted once')
  }
}

interface Served {
  statusCode: number
  body: string
  headers: Record<string, string> | undefined
}

/** An answer of the app, on a connection that goes on as HTTP. */
export function served (statusCode: number, body: string, headers?: Record<string, string>): Expected {
  return async (exchange) => {
    const { t, client } = exchange
    await testServed(exchange, { statusCode, body, headers })
    await client.send(requestText('/alive'))
    t.equal((await client.answer()).body, 'alive', 'the connection is still of use')
    t.equal(client.unread, '')
    client.socket.destroy()
  }
}

/** An answer of the app, after which the connection closes. */
export function servedLast (statusCode: number, body: string, headers?: Record<string, string>): Expected {
  return async (exchange) => {
    const { t, client } = exchange
    await testServed(exchange, { statusCode, body, headers })
    await testClosed(t, client)
  }
}

/** These bytes and no others, and the connection closes: what Node refuses before anybody else sees it, or cannot answer. */
export function closed (bytes = ''): Expected {
  return async ({ t, app, client, before }) => {
    t.equal((await client.readToEnd()).toString(), bytes)
    await client.closed
    t.same(countersOf(app), before, 'it is no handshake')
  }
}

/** What Fastify answers to bytes that Node's parser does not take for a request. */
export function unparsable (statusCode: 400 | 408 | 431 = 400): Expected {
  const message = { 400: 'Client Error', 408: 'Client Timeout', 431: 'Exceeded maximum allowed HTTP header size' }[statusCode]
  const body = `{"error":"${STATUS_CODES[statusCode]}","message":"${message}","statusCode":${statusCode}}`
  return closed(`HTTP/1.1 ${statusCode} ${STATUS_CODES[statusCode]}\r\nContent-Length: ${body.length}\r\nContent-Type: application/json\r\n\r\n${body}`)
}

async function testServed ({ t, app, client, before }: Exchange, { statusCode, body, headers = {} }: Served): Promise<void> {
  const answer = await client.answer()
  t.equal(answer.statusCode, statusCode, 'status')
  t.equal(answer.body, body, 'content')
  for (const [name, value] of Object.entries(headers)) t.equal(answer.headers[name], value, `header ${name}`)
  t.same(countersOf(app), before, 'it is no handshake')
}

function countersOf (app: FastifyInstance): Counters {
  const { attached, refused } = app.relayHub.stats()
  return { attached, refused }
}

async function testClosed (t: Test, client: RawClient): Promise<void> {
  t.equal(await client.closed, undefined, 'the connection closes, and not by a reset')
  t.equal(client.unread, '', 'nothing comes behind the answer')
}

function statusLineOf (head: string): string {
  return head.slice(0, head.indexOf('\r\n'))
}
