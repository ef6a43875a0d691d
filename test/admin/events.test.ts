import { once } from 'node:events'
import { get as request, type IncomingMessage } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import type { AddressInfo } from 'node:net'
import type { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { EventBroadcast } from '../../lib/admin/event-broadcast.ts'
import type { RelayHub } from '../../lib/index.ts'
import { relayServerOf } from '../../lib/plugin.ts'
import { Mailbox } from '../helpers/mailbox.ts'
import { askForUpgrade } from '../helpers/relay-app.ts'
import { openTunnel } from '../helpers/tunnel.ts'
import { authorization, get, startAdmin } from './admin-app.ts'

async function openEvents (t: Test, app: FastifyInstance): Promise<IncomingMessage> {
  const { port } = app.server.address() as AddressInfo
  const asked = request({ port, host: '127.0.0.1', path: '/relay-admin/events', headers: { authorization } })
  t.teardown(() => asked.destroy())
  const [answer] = await once(asked, 'response') as [IncomingMessage]
  // Broken off when the test ends.
  answer.on('error', () => {})
  return answer
}

function eventsOf (stream: Readable): Mailbox<any> {
  const events = new Mailbox<any>()
  let rest = ''
  stream.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n')
    rest = lines.pop()!
    for (const line of lines) events.push(JSON.parse(line))
  })
  return events
}

const refusal = { statusCode: 503, code: undefined, message: 'x', address: undefined, path: '/' }

async function startBroadcast (t: Test, heartbeatInterval?: number): Promise<{ app: FastifyInstance, hub: RelayHub, broadcast: EventBroadcast }> {
  const app = await startAdmin(t)
  const { relayHub: hub } = app
  const broadcast = new EventBroadcast(hub, heartbeatInterval)
  t.teardown(() => broadcast.close())
  return { app, hub, broadcast }
}

t.test('tells who comes, leaves and is refused, as it happens', async (t) => {
  const app = await startAdmin(t)
  const answer = await openEvents(t, app)
  t.match(answer.headers, { 'content-type': 'application/x-ndjson', 'x-accel-buffering': 'no', 'cache-control': 'no-store' })
  const events = eventsOf(answer)
  t.match(await events.next(), { event: 'heartbeat', time: /^\d{4}-.*Z$/ }, 'one at once, so that the answer begins')
  const tunnel = await openTunnel(t, app, { id: 'a', path: '/relay/x%1b' })
  const attach = await events.next()
  t.match(attach, { event: 'attach', peer: { id: 'a', channel: { name: 'x' }, framing: 'wg' } })
  t.equal(attach.peer.channel.name, 'x')
  t.notOk('context' in attach.peer)
  tunnel.socket.end()
  t.match(await events.next(), { event: 'detach', peer: { id: 'a' }, reason: 'ended', text: 'the client ended the tunnel', duration: Number })
  await askForUpgrade(t, app, '/relay/home?token=secret', { headers: { Upgrade: 'x' } })
  const refuse = await events.next()
  t.match(refuse, { event: 'refuse', statusCode: 400, code: 'FST_RELAY_PROTOCOL', message: 'does not speak "x"', address: '127.0.0.1', path: '/relay/:network' })
  await askForUpgrade(t, app, '/relay/home', { headers: { 'X-Id': 'stranger' } })
  const byHook = await events.next()
  t.match(byHook, { event: 'refuse', statusCode: 401 })
  t.notOk('code' in byHook)
})

t.test('what has happened is remembered: the last 200 refusals, and the last 200 comings and goings', async (t) => {
  const app = await startAdmin(t)
  t.match((await get(app, 'history')).json, { refusals: [], moves: [], since: Number, time: Number })
  const tunnel = await openTunnel(t, app, { id: 'a', path: '/relay/x%1b' })
  await askForUpgrade(t, app, `/relay/${'y'.repeat(90)}?token=secret`, { headers: { Upgrade: 'x' } })
  const events = eventsOf(await openEvents(t, app))
  tunnel.socket.end()
  const [, detach] = await events.take(2)
  t.equal(detach.serial, 3, 'counted along, so that a reader knows which of them it has')
  const { json } = await get(app, 'history')
  t.match(json.moves, [
    { event: 'attach', serial: 1, time: /Z$/, peer: { id: 'a', channel: { name: 'x' }, framing: 'wg', address: '127.0.0.1' } },
    { event: 'detach', serial: 3, peer: { id: 'a' }, reason: 'ended', text: 'the client ended the tunnel', duration: Number }
  ])
  t.equal(json.moves[0].peer.channel.name, 'x')
  t.match(json.refusals, [{ event: 'refuse', serial: 2, statusCode: 400, code: 'FST_RELAY_PROTOCOL', address: '127.0.0.1' }])
  t.notMatch(JSON.stringify(json), /secret/)

  for (let i = 0; i < 1000; i++) app.relayHub.emit('refuse', { ...refusal, path: `/${i}/${'z'.repeat(10_000)}` })
  const after = (await get(app, 'history')).json
  t.equal(after.moves.length, 2, 'a flood of the one does not drive out the other')
  t.equal(after.refusals.length, 200)
  t.match(after.refusals[199].path, /^\/999\/z+…$/)
  t.ok(JSON.stringify(after).length < 200_000, 'and long texts are cut')
})

t.test('any number of readers is told the same', async (t) => {
  const app = await startAdmin(t)
  const readers = []
  for (let i = 0; i < 20; i++) readers.push(eventsOf(await openEvents(t, app)))
  await openTunnel(t, app, { id: 'a' })
  for (const events of readers) t.match((await events.take(2))[1], { event: 'attach', peer: { id: 'a' } })
})

t.test('ends with the app, behind what its end brings', async (t) => {
  const app = await startAdmin(t)
  const answer = await openEvents(t, app)
  const events = eventsOf(answer)
  await openTunnel(t, app, { id: 'a' })
  const ended = once(answer, 'end')
  await app.close()
  await ended
  t.match(events.all.map(({ event }) => event), ['heartbeat', 'attach', 'detach'])
  t.equal(events.all[2].reason, 'shutdown')
})

t.test('readers that take nothing do not keep the app from closing', async (t) => {
  const app = await startAdmin(t)
  const answers = []
  for (let i = 0; i < 3; i++) answers.push(await openEvents(t, app))
  const long = { ...refusal, message: 'x'.repeat(400), path: `/${'y'.repeat(400)}` }
  // More than the system holds for those that do not read.
  for (let i = 0; i < 20_000; i++) {
    app.relayHub.emit('refuse', long)
    if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
  }
  await app.close()
})

t.test('nor over HTTP/2 those that leave no room for anything', async (t) => {
  const app = await startAdmin(t, { server: { http2: true } })
  const { port } = app.server.address() as AddressInfo
  const session = connectHttp2(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0 } })
  t.teardown(() => session.destroy())
  const streams = Array.from({ length: 10 }, () => session.request({ ':path': '/relay-admin/events', authorization }))
  for (const stream of streams) stream.on('error', () => {})
  await Promise.all(streams.map((stream) => once(stream, 'response')))
  await app.close()
})

t.test('ends with the hub, where a hook of the app has kept Fastify from telling', async (t) => {
  const { app, broadcast } = await startBroadcast(t, 5)
  const reader = broadcast.read()
  reader.resume()
  await Promise.all([once(reader, 'end'), relayServerOf(app)!.hub.close()])
})

t.test('a reader that leaves is forgotten', async (t) => {
  const { hub, broadcast } = await startBroadcast(t)
  const reader = broadcast.read()
  reader.resume()
  reader.destroy()
  await once(reader, 'close')
  t.intercept(reader, 'push', { value: () => t.fail('it is told something') })
  hub.emit('refuse', refusal)
})

t.test('a slow reader is kept little for, and is told how much it has missed', async (t) => {
  const { hub, broadcast } = await startBroadcast(t)
  const reader = broadcast.read()
  for (let i = 0; i < 10_000; i++) hub.emit('refuse', refusal)
  t.ok(reader.readableLength < 70_000, `${reader.readableLength} bytes wait`)
  const events = eventsOf(reader)
  let told = 0
  let event = await events.next()
  for (; event.event !== 'missed'; event = await events.next()) told += Number(event.event === 'refuse')
  t.equal(told + event.count, 10_000)
  hub.emit('refuse', refusal)
  t.match(await events.next(), { event: 'refuse' }, 'and goes on')
})

t.test('a heartbeat comes again and again', async (t) => {
  const { broadcast } = await startBroadcast(t, 5)
  const events = eventsOf(broadcast.read())
  t.match(await events.take(3), Array(3).fill({ event: 'heartbeat' }))
})

t.test('a reader that takes nothing from one heartbeat to another is given up', async (t) => {
  const { hub, broadcast } = await startBroadcast(t, 5)
  const reader = broadcast.read()
  for (let i = 0; i < 10_000; i++) hub.emit('refuse', refusal)
  await once(reader, 'close')
  t.ok(reader.destroyed)
})

t.test('has no route for HEAD, which would never end', async (t) => {
  const app = await startAdmin(t)
  t.equal((await app.inject({ method: 'HEAD', url: '/relay-admin/events', headers: { authorization } })).statusCode, 404)
})
