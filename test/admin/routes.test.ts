import t from 'tap'
import { detached } from '../helpers/relay.ts'
import { openTunnel, settle } from '../helpers/tunnel.ts'
import { askForUpgrade } from '../helpers/relay-app.ts'
import { authorization, get, startAdmin } from './admin-app.ts'

t.test('stats are those of the hub', async (t) => {
  const app = await startAdmin(t)
  const [a, b] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'b' })]
  a.send(Buffer.alloc(100), Buffer.alloc(4000))
  await settle(a, b)
  await askForUpgrade(t, app, '/relay/home', { headers: { 'X-Id': 'stranger' } })
  const { time, ...stats } = (await get(app, 'stats')).json
  t.same(stats, app.relayHub.stats())
  t.match(stats, { peers: 2, channels: 1, datagramsIn: 2, datagramsOut: 1, drops: { 'too-large': 1 }, refused: { 401: 1 } })
  t.ok(Math.abs(Date.now() - time) < 60_000)
})

t.test('peers are shown with their counters, without what the app keeps about them', async (t) => {
  const app = await startAdmin(t)
  const [a, b] = [await openTunnel(t, app, { id: 'a' }), await openTunnel(t, app, { id: 'b' })]
  a.send(Buffer.alloc(100))
  await settle(a, b)
  const { json } = await get(app, 'peers?sort=id')
  t.equal(json.total, 2)
  t.match(json.peers, [
    { id: 'a', channel: { scope: '/relay/:network', name: 'home', kind: 'packet' }, address: '127.0.0.1', protocol: 'spanza', framing: 'wg', datagramsIn: 1, drops: 0 },
    { id: 'b', datagramsOut: 1 }
  ])
  const { context, ...shown } = app.relayHub.peers()[0]!
  t.same(json.peers[0], JSON.parse(JSON.stringify(shown)), 'all that the hub tells but the context')
  t.notMatch(JSON.stringify(json), 'of the app')
})

t.test('peers are paged, ordered and searched', async (t) => {
  const app = await startAdmin(t)
  for (const [id, path] of [['Anna', '/relay/home'], ['berta', '/relay/home'], ['carl', '/relay/garage'], ['dora', '/relay/garage']] as const) {
    const tunnel = await openTunnel(t, app, { id, path })
    if (id === 'carl') tunnel.send(Buffer.alloc(9000))
    if (id === 'berta') tunnel.send(Buffer.alloc(500))
    await settle(tunnel)
  }
  const ids = async (query: string): Promise<unknown> => {
    const { json } = await get(app, `peers?${query}`)
    return [json.total, ...json.peers.map(({ id }: { id: string }) => id)]
  }
  t.same(await ids('sort=id&limit=3'), [4, 'Anna', 'berta', 'carl'])
  t.same(await ids('sort=id&limit=3&offset=3'), [4, 'dora'])
  t.same(await ids('sort=id&offset=100'), [4])
  t.same((await ids('') as unknown[]).slice(0, 2), [4, 'carl'], 'those with the most traffic first')
  t.same((await ids('sort=drops') as unknown[])[1], 'carl')
  t.same((await ids('sort=newest') as unknown[]).length, 5)
  t.same(await ids('search=ANN'), [1, 'Anna'], 'whatever the case')
  t.same(await ids('search=garage&sort=id'), [2, 'carl', 'dora'], 'by channel')
  t.same(await ids('search=nobody'), [0])
  t.same(await ids('channel=home&sort=id'), [2, 'Anna', 'berta'])
  t.same(await ids('channel=home&scope=/other'), [0])
  t.same(await ids('kind=stream'), [0])
  t.same(await ids('channel='), [0], 'a channel whose name is empty is not any channel')
  for (const query of ['limit=0', 'limit=501', 'offset=-1', 'sort=size', 'kind=x']) {
    t.equal((await get(app, `peers?${query}`)).statusCode, 400, query)
  }
})

t.test('channels are shown with the sum of their peers, and those with the most traffic', async (t) => {
  const app = await startAdmin(t)
  const a = await openTunnel(t, app, { id: 'a' })
  const b = await openTunnel(t, app, { id: 'b' })
  const c = await openTunnel(t, app, { id: 'c', path: '/relay/work' })
  a.send(Buffer.alloc(1000), Buffer.alloc(1000))
  await settle(a, b, c)
  const { json } = await get(app, 'channels')
  t.equal(json.total, 2)
  t.match(json.channels, [
    { scope: '/relay/:network', name: 'home', kind: 'packet', peers: 2, datagramsIn: 2, datagramsOut: 2, busiest: [] },
    { name: 'work', peers: 1, datagramsIn: 0 }
  ])
  t.ok(json.channels[0].bytesIn >= 2000 && json.channels[0].bytesOut >= 2000)
  t.match((await get(app, 'channels?busiest=1&limit=1')).json, { total: 2, channels: [{ name: 'home', busiest: [{ id: 'a' }] }] })
  t.match((await get(app, 'channels?limit=1&offset=1')).json, { total: 2, channels: [{ name: 'work' }] })
  t.match((await get(app, 'channels?search=b')).json, { total: 1, channels: [{ name: 'home', peers: 2 }] }, 'that of a peer is found, with all its peers')
})

t.test('one peer is shown, or 404', async (t) => {
  const app = await startAdmin(t)
  await openTunnel(t, app, { id: 'a' })
  t.match((await get(app, 'peer?id=a&channel=home')).json.peers, [{ id: 'a', bytesIn: 0 }])
  t.match(await get(app, 'peer?id=a&channel=work'), { statusCode: 404, json: { code: 'FST_RELAY_ADMIN_PEER' } })
  t.equal((await get(app, 'peer?id=a')).statusCode, 400, 'ids are those of a channel')
})

t.test('what a peer calls itself has no control characters', async (t) => {
  const app = await startAdmin(t)
  await openTunnel(t, app, { id: 'a', path: '/relay/x%1b%5b2J%E2%80%AE' })
  t.match((await get(app, 'peers')).json.peers, [{ id: 'a', channel: { name: 'x[2J' } }])
  t.match((await get(app, 'channels')).json.channels, [{ name: 'x[2J' }])
  const answer = await app.inject({ url: '/relay-admin/disconnect', method: 'POST', headers: { authorization }, payload: { id: 'a', channel: 'x[2J' } })
  t.same(answer.json(), { closed: 1 }, 'it is found by what is shown')
})

t.test('a peer is disconnected, and only that one', async (t) => {
  const app = await startAdmin(t)
  const a = await openTunnel(t, app, { id: 'a' })
  await openTunnel(t, app, { id: 'b' })
  await openTunnel(t, app, { id: 'a', path: '/relay/work' })
  const left = detached(app, 'a')
  const disconnect = async (payload: object): Promise<unknown> =>
    (await app.inject({ url: '/relay-admin/disconnect', method: 'POST', headers: { authorization }, payload })).json()
  t.same(await disconnect({ id: 'a', channel: 'home', text: 'enough' }), { closed: 1 })
  t.match(await left, { reason: 'disconnected', text: 'enough' })
  await a.ended
  t.match(a.closing, { code: 6, text: 'enough' })
  t.equal(app.relayHub.stats().peers, 2)
  t.same(await disconnect({ id: 'a', channel: 'home' }), { closed: 0 })
  t.same(await disconnect({ id: 'a', channel: 'work', kind: 'stream' }), { closed: 0 })
  t.match(await disconnect({ channel: 'work' }), { statusCode: 400 })
})

t.test('a change has to be JSON, whatever the app understands', async (t) => {
  const app = await startAdmin(t, {
    before: (app) => app.addContentTypeParser('application/x-www-form-urlencoded', async () => ({ id: 'a', channel: 'home' }))
  })
  await openTunnel(t, app, { id: 'a' })
  for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=x', undefined]) {
    const answer = await app.inject({
      url: '/relay-admin/disconnect',
      method: 'POST',
      headers: { authorization, ...(type === undefined ? {} : { 'content-type': type }) },
      payload: Buffer.from('{"id":"a","channel":"home"}')
    })
    t.equal(answer.statusCode, 415, type ?? 'none')
  }
  t.equal(app.relayHub.stats().peers, 1)
})

const host = 'relay.example.com:8080'
const sources: Array<[what: string, headers: Record<string, string>, statusCode: number]> = [
  ['no browser', {}, 200],
  ['a page of this origin', { origin: `http://${host}`, 'sec-fetch-site': 'same-origin' }, 200],
  ['a page of this origin, where the browser does not say so', { origin: `http://${host}` }, 200],
  ['a page of this origin behind a proxy that hides it', { origin: 'https://public.example', 'sec-fetch-site': 'same-origin' }, 200],
  ['another site', { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }, 403],
  ['another host of this site', { origin: 'http://other.example.com:8080', 'sec-fetch-site': 'same-site' }, 403],
  ['nobody knows where', { 'sec-fetch-site': 'none' }, 403],
  ['another site, where the browser does not say so', { origin: 'https://evil.example' }, 403],
  ['another port', { origin: 'http://relay.example.com:8081' }, 403],
  ['another scheme', { origin: `https://${host}` }, 403],
  ['a page without origin', { origin: 'null' }, 403]
]

for (const [what, headers, statusCode] of sources) {
  t.test(`a change asked for by ${what} is answered ${statusCode}`, async (t) => {
    const app = await startAdmin(t)
    await openTunnel(t, app, { id: 'a' })
    const answer = await app.inject({
      url: '/relay-admin/disconnect', method: 'POST', headers: { authorization, host, ...headers }, payload: { id: 'a', channel: 'home' }
    })
    t.equal(answer.statusCode, statusCode)
    if (statusCode === 403) t.match(answer.json(), { code: 'FST_RELAY_ADMIN_ORIGIN', message: `of http://${host}` })
    t.equal(app.relayHub.stats().peers, statusCode === 200 ? 0 : 1)
  })
}

t.test('answers are kept by nobody, and for pages of this origin', async (t) => {
  const app = await startAdmin(t)
  const { headers } = await app.inject({ url: '/relay-admin/peers', headers: { authorization } })
  t.match(headers, { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'cross-origin-resource-policy': 'same-origin' })
})
