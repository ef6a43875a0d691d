import { connect } from 'node:http2'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Program } from '../helpers/program.ts'

// What `npm start` runs when everything is installed and built.

t.setTimeout(150_000)

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url))

/** Starts the example app on a free port; the link to its page with a token of alice's. */
async function start (t: Test, env: NodeJS.ProcessEnv): Promise<URL> {
  const program = new Program(process.execPath, [file('../../example-app/start.js')], { env: { PORT: '0', ...env }, name: 'example app' })
  t.teardown(() => program.stop())
  return new URL((await program.line((line) => line.includes('/#token='), 60_000)).trim())
}

t.test('starting the example app prints a link to its page, with a token that is good', async (t) => {
  const link = await start(t, {})
  const page = await fetch(link)
  t.match(page.headers.get('content-type'), /^text\/html/)
  t.match(await page.text(), /<script src="page\.js"/)
  const token = new URLSearchParams(link.hash.slice(1)).get('token')!
  const answer = await fetch(new URL('/api/whoami', link), { headers: { authorization: `Bearer ${token}` } })
  t.same(await answer.json(), { id: 'alice', networks: ['home'], origin: link.origin })
})

t.test('with TLS_KEY and TLS_CERT it speaks HTTP/2, and tunnels over it', async (t) => {
  const link = await start(t, { TLS_KEY: file('../fixtures/server-key.pem'), TLS_CERT: file('../fixtures/server.pem') })
  t.equal(link.protocol, 'https:')
  const session = connect(link.origin, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const [settings] = await once(session, 'remoteSettings')
  t.equal(settings.enableConnectProtocol, true)
})
