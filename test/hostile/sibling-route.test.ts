import t from 'tap'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { startApp } from '../helpers/relay-app.ts'

// Each of these URLs leads to a route of the app's own, which stands before the relay route that matches it as well.
const rows: Array<[title: string, path: string, host: string]> = [
  ['a pattern with an expression', '/pattern/12', 'localhost'],
  ['a constraint', '/constrained', 'other.example']
]

for (const [title, path, host] of rows) {
  t.test(`an upgrade to a route that comes before the relay route by ${title} goes to the other listener`, async (t) => {
    const app = await startApp(t, (app) => {
      app.relay('/pattern/:network')
      app.get('/pattern/:network(^\\d+$)', async () => 'rest')
      app.relay('/constrained')
      app.get('/constrained', { constraints: { host: 'other.example' } }, async () => 'rest')
    })
    app.server.on('upgrade', (_request, socket) => { socket.end('HTTP/1.1 101 other\r\n\r\n') })
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText(path, { host, headers: { Upgrade: 'websocket' } }))
    t.match((await client.head()).head, /^HTTP\/1\.1 101 other\r\n/)
  })
}
