import { Writable } from 'node:stream'
import t from 'tap'
import { launchChromium, skip } from '../helpers/chromium.ts'
import { openTunnel } from '../helpers/tunnel.ts'
import { adminPassword, http2Options, startExample, tokens } from './example-app.ts'
import { ExamplePage } from './example-page.ts'

// What the example app shows to whoever runs it.

const paths = ['/relay-admin/', '/relay-admin/page.js', '/relay-admin/stats', '/relay-admin/peers', '/metrics']
const tunnelOptions = { path: `/relay/home?token=${tokens.alice}` }

function basic (username: string, password: string): { authorization: string } {
  return { authorization: `Basic ${btoa(`${username}:${password}`)}` }
}

t.test('without the credentials of the admin, a browser is told to ask for them', async (t) => {
  const app = await startExample(t)
  const others = {
    none: {},
    'a wrong password': basic('admin', 'guessed'),
    'an empty password': basic('admin', ''),
    'another user': basic('alice', adminPassword),
    'a device, with its token as password': basic('alice', tokens.alice),
    'a device, with its token': { authorization: `Bearer ${tokens.alice}` }
  }
  for (const path of paths) {
    for (const [whose, headers] of Object.entries(others)) {
      const answer = await fetch(`${app.listeningOrigin}${path}`, { headers })
      t.equal(answer.status, 401, `${path}: ${whose}`)
      t.match(answer.headers.get('www-authenticate'), /^Basic realm="relay"/)
      t.notMatch(await answer.text(), 'spanza_relay_')
    }
  }
})

t.test('the admin gets a page, JSON and metrics', async (t) => {
  const app = await startExample(t)
  await openTunnel(t, app, tunnelOptions)
  const get = async (path: string): Promise<Response> => {
    const answer = await fetch(`${app.listeningOrigin}${path}`, { headers: basic('admin', adminPassword) })
    t.equal(answer.status, 200, path)
    return answer
  }
  const page = await get('/relay-admin/')
  t.match(page.headers.get('content-type'), /^text\/html/)
  t.match(await page.text(), /<script [^>]*src="page\.js"/)
  t.match(await (await get('/relay-admin/peers')).json(), { total: 1, peers: [{ id: 'alice', channel: { name: 'home' } }] })
  t.match(await (await get('/relay-admin/stats')).json(), { peers: 1, attached: 1 })

  const metrics = await get('/metrics')
  t.match(metrics.headers.get('content-type'), /^text\/plain; version=/)
  const text = await metrics.text()
  t.match(text, 'spanza_relay_peers{route="/relay/:network",protocol="spanza",framing="wg",http_version="1.1"} 1\n')
  t.match(text, /^process_cpu_seconds_total /m, 'beside those of the process')
  t.notMatch(text, 'alice')
})

for (const { httpVersion, server } of [{ httpVersion: '1.1', server: {} }, { httpVersion: '2', server: http2Options() }]) {
  t.test(`over HTTP/${httpVersion}, a browser that has the credentials shows who is there`, { skip }, async (t) => {
    const app = await startExample(t, { server })
    const page = await (await launchChromium()).newPage({ httpCredentials: { username: 'admin', password: adminPassword } })
    t.teardown(() => page.close())
    await page.goto(`${app.listeningOrigin}/relay-admin`)
    await page.getByText('Live', { exact: true }).waitFor()
    const peer = await ExamplePage.open(t, app, tokens.bob)
    await peer.join()
    t.match(await page.locator('#peer-rows tr', { hasText: 'bob' }).textContent(), 'home')
  })
}

t.test('no line of the log has the password in it', async (t) => {
  const lines: string[] = []
  const stream = new Writable({ decodeStrings: false, write: (line, _encoding, done) => { lines.push(line); done() } })
  const app = await startExample(t, { server: { logger: { level: 'trace', stream } } })
  const guessed = 'guessed-by-somebody'
  for (const path of paths) {
    for (const [password, statusCode] of [[adminPassword, 200], [guessed, 401]] as const) {
      const answer = await fetch(`${app.listeningOrigin}${path}?password=${password}`, { headers: basic('admin', password) })
      t.equal(answer.status, statusCode)
      await answer.text()
    }
  }
  await app.close()
  t.ok(lines.some((line) => line.includes('"url":"/metrics"')), 'the log has the requests')
  const secrets = [adminPassword, guessed].flatMap((password) => [password, btoa(`admin:${password}`)])
  t.same(lines.filter((line) => secrets.some((secret) => line.includes(secret))), [])
})
