import { connect } from 'node:http2'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Program } from '../helpers/program.ts'

// What `npm start` runs when everything is installed and built.

t.setTimeout(150_000)

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** Starts the example app on a free port. */
function run (t: Test, env: NodeJS.ProcessEnv): Program {
  const program = new Program(process.execPath, [file('../../example-app/start.js')], { env: { PORT: '0', ...env }, name: 'example app' })
  t.teardown(() => program.stop())
  return program
}

/** A line that it prints, without what it is indented by. */
async function lineOf (program: Program, match: RegExp): Promise<string> {
  return (await program.line((line) => match.test(line), 60_000)).trim()
}

/** The link to its page with a token of alice's. */
async function linkOf (program: Program): Promise<URL> {
  return new URL(await lineOf(program, /\/#token=/))
}

async function askAsAdmin (url: string, password: string): Promise<number> {
  const answer = await fetch(url, { headers: { authorization: `Basic ${btoa(`admin:${password}`)}` } })
  await answer.text()
  return answer.status
}

t.test('starting the example app prints a link to its page, with a token that is good', async (t) => {
  const link = await linkOf(run(t, {}))
  const page = await fetch(link)
  t.match(page.headers.get('content-type'), /^text\/html/)
  t.match(await page.text(), /<script src="page\.js"/)
  const token = new URLSearchParams(link.hash.slice(1)).get('token')!
  const answer = await fetch(new URL('/api/whoami', link), { headers: { authorization: `Bearer ${token}` } })
  t.same(await answer.json(), { id: 'alice', networks: ['home'], origin: link.origin })
})

t.test('it prints where the admin looks, and a password that is good until the next start', async (t) => {
  const passwords: string[] = []
  for (const env of [{}, { ADMIN_PASSWORD: '' }]) {
    const program = run(t, env)
    const urls = [await lineOf(program, /\/relay-admin\/$/), await lineOf(program, /\/metrics$/)]
    const password = (await lineOf(program, /password/)).split(' ').at(-1)!
    for (const url of urls) {
      t.equal(await askAsAdmin(url, password), 200, url)
      t.equal(await askAsAdmin(url, ''), 401)
    }
    await program.stop()
    t.equal(program.lines.filter((line) => line.includes(password)).length, 1, 'the log does not have it')
    passwords.push(password)
  }
  t.not(passwords[0], passwords[1])
  t.ok(passwords.every((password) => password.length === 32))
})

t.test('with ADMIN_PASSWORD and DEVICES, it prints no secret', async (t) => {
  const devices = join(t.testdir({ 'devices.json': JSON.stringify([{ id: 'nas', token: 'secret-of-the-nas', networks: ['home'] }]) }), 'devices.json')
  const program = run(t, { ADMIN_PASSWORD: 'secret-of-the-admin', DEVICES: devices })
  const url = await lineOf(program, /\/relay-admin\/$/)
  t.equal(await askAsAdmin(url, 'secret-of-the-admin'), 200)
  await program.stop()
  t.notMatch(program.lines.join('\n'), /secret-of/)
})

t.test('its log is for people, and with NODE_ENV=production JSON', async (t) => {
  t.match(await lineOf(run(t, {}), /Server listening/), /^\[[\d:.]+\].* INFO.*Server listening at http/)
  t.match(JSON.parse(await lineOf(run(t, { NODE_ENV: 'production' }), /Server listening/)), { level: 30, msg: /^Server listening at http/ })
})

t.test('with TLS_KEY and TLS_CERT it speaks HTTP/2, and tunnels over it', async (t) => {
  const link = await linkOf(run(t, { TLS_KEY: file('../fixtures/server-key.pem'), TLS_CERT: file('../fixtures/server.pem') }))
  t.equal(link.protocol, 'https:')
  const session = connect(link.origin, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const [settings] = await once(session, 'remoteSettings')
  t.equal(settings.enableConnectProtocol, true)
})
