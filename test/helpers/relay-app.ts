import { readFileSync } from 'node:fs'
import Fastify, { type FastifyInstance, type FastifyListenOptions, type FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import spanzaRelay, { type RelayErrorCode, type RefusalInfo, type SpanzaRelayOptions } from '../../lib/index.ts'
import { RawClient, upgradeText, type Answer, type DialOptions, type RequestParts } from './raw-client.ts'

export interface AppOptions {
  /** For Fastify. */
  server?: FastifyServerOptions & { https?: object | null }
  /** For the plugin. */
  relay?: SpanzaRelayOptions
  listen?: FastifyListenOptions
}

/** What an HTTPS server needs. */
export function serverCertificate (): { key: Buffer, cert: Buffer } {
  const read = (name: string): Buffer => readFileSync(new URL(`../fixtures/${name}`, import.meta.url))
  return { key: read('server-key.pem'), cert: read('server.pem') }
}

/** Starts an app with the plugin; its end is the test's. */
export async function startApp (
  t: Test, setUp: (app: FastifyInstance) => unknown, { server, relay = {}, listen }: AppOptions = {}
): Promise<FastifyInstance> {
  const app = Fastify(server as FastifyServerOptions) as FastifyInstance
  await app.register(spanzaRelay, relay)
  await setUp(app)
  return await startListening(t, app, listen)
}

export async function startListening (t: Test, app: FastifyInstance, listen: FastifyListenOptions = {}): Promise<FastifyInstance> {
  await app.listen({ ...(listen.path === undefined ? { port: 0, host: '127.0.0.1' } : {}), ...listen })
  t.teardown(() => app.close())
  return app
}

/** A tunnel behind its 101, without framing unless the headers ask for one. */
export async function openBare (t: Test, app: FastifyInstance, path: string, parts?: RequestParts, dial?: DialOptions): Promise<RawClient> {
  const client = await RawClient.dial(t, app, dial)
  await client.upgrade(t, path, parts)
  return client
}

/** Sends a request that asks for an upgrade, and reads the answer to it. */
export async function askForUpgrade (t: Test, app: FastifyInstance, path: string, parts?: RequestParts, dial?: DialOptions): Promise<Answer> {
  const client = await RawClient.dial(t, app, dial)
  await client.send(upgradeText(path, parts))
  return await client.answer()
}

/** Tests that bytes go from one tunnel to the other, and back. */
export async function testJoined (t: Test, a: RawClient, b: RawClient): Promise<void> {
  await a.send('there')
  t.equal((await b.read(5)).toString(), 'there')
  await b.send('back')
  t.equal((await a.read(4)).toString(), 'back')
}

/** The refusals of an app's handshakes, as they are told. */
export function refusalsOf (app: FastifyInstance): RefusalInfo[] {
  const refusals: RefusalInfo[] = []
  app.relayHub.on('refuse', (refusal) => refusals.push(refusal))
  return refusals
}

export interface Expected {
  statusCode: number
  /** None for what a hook of the app refuses. */
  code?: RelayErrorCode
  /** The code of the app's own error, as it is told. */
  toldCode?: string
  /** Further headers that the answer must have. */
  headers?: Record<string, string | RegExp>
  message?: string | RegExp
}

/**
 * Sends `bytes` and tests the refusal: the answer, that the connection closes in good order behind it, and that it is
 * counted and told once.
 */
export async function testRefusal (t: Test, app: FastifyInstance, bytes: string | Uint8Array, expected: Expected, dial?: DialOptions): Promise<Answer> {
  const refusals = refusalsOf(app)
  const counter = expected.code ?? String(expected.statusCode)
  const before = app.relayHub.stats()
  const client = await RawClient.dial(t, app, dial)
  await client.send(bytes)
  const answer = await client.answer()
  t.equal(answer.statusCode, expected.statusCode, 'status')
  if (answer.statusCode === 101) return answer
  t.match(answer.headers['connection'], /^close\b/, 'the answer says that the connection closes')
  if (expected.code !== undefined) {
    t.match(JSON.parse(answer.body), { statusCode: expected.statusCode, code: expected.code }, 'status and code in the content')
  }
  if (expected.message !== undefined) t.match(JSON.parse(answer.body).message, expected.message, 'message')
  for (const [name, value] of Object.entries(expected.headers ?? {})) t.match(answer.headers[name], value, `header ${name}`)
  t.equal(await client.closed, undefined, 'the connection closes, and not by a reset')
  t.equal(client.unread, '', 'nothing comes behind the answer')
  t.match(refusals, [{ statusCode: expected.statusCode, code: expected.toldCode ?? expected.code }], 'told as the event refuse, once')
  const { refused, attached } = app.relayHub.stats()
  t.equal(refused[counter], (before.refused[counter] ?? 0) + 1, `counted as ${counter}`)
  t.equal(attached, before.attached, 'nothing is attached')
  return answer
}
