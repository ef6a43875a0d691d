import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { lines, roomy } from '../helpers/handshake-table.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { startApp, startListening } from '../helpers/relay-app.ts'

// The REST routes of an app must not notice the plugin. So the same bytes go to an app without it and to one with it,
// and what comes back must be the same, byte by byte, but for the date. What an app without it does is Node's affair.

function addRest (app: FastifyInstance): void {
  app.get('/rest', async (request) => ({ upgrade: request.headers.upgrade, connection: request.headers.connection }))
  app.post('/rest', async (request) => ({ got: request.body, upgrade: request.headers.upgrade }))
  app.get('/slow', async () => {
    await new Promise((resolve) => setImmediate(resolve))
    return 'slow'
  })
  app.get('/last', async () => 'the last')
  app.post('/relay', async (request) => ({ got: request.body }))
}

const offers: Record<string, string[]> = {
  'no upgrade': [],
  h2c: ['Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA'],
  'a WebSocket': ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Version: 13'],
  spanza: ['Connection: Upgrade', 'Upgrade: spanza', 'Spanza-Framing: wg'],
  'UoTLV/1': ['Connection: keep-alive, Upgrade', 'Upgrade: UoTLV/1'],
  'TLS/1.0': ['Connection: Upgrade', 'Upgrade: TLS/1.0'],
  'Upgrade without Connection': ['Upgrade: spanza'],
  'Connection without Upgrade': ['Connection: Upgrade'],
  'a list, with close': ['Connection: close, Upgrade', 'Upgrade: h2c, spanza']
}

const JSON_TYPE = 'Content-Type: application/json'
const SMALL = '{"a":1}'
const LARGE = JSON.stringify({ text: 'x'.repeat(200_000) })

function chunked (...parts: string[]): string {
  return [...parts, ''].map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join('')
}

type Ask = (offer: string[]) => string[]

const get = (path: string): Ask => (offer) => [lines(`GET ${path} HTTP/1.1`, 'Host: localhost', ...offer)]
const post = (headers: string[], ...bodies: string[]): Ask => (offer) => {
  const [first = '', ...rest] = bodies
  return [lines('POST /rest HTTP/1.1', 'Host: localhost', JSON_TYPE, ...offer, ...headers) + first, ...rest]
}
/** Several requests in one write. */
const together = (...asks: Ask[]): Ask => (offer) => [asks.flatMap((ask) => ask(offer)).join('')]
const plain = (ask: Ask): Ask => () => ask([])

/** What is sent, in one write or in several; each waits for an answer to the one before, a 100 included. */
const requests: Record<string, Ask> = {
  'a GET': get('/rest'),
  'a GET that is answered later': get('/slow'),
  'a GET to nowhere': get('/nowhere'),
  'a GET to a path that only looks like the relay route': get('/relay/'),
  'a GET to the relay path in other letters': get('/Relay'),
  'a GET with a bad escape': get('/%zz'),
  'a GET with a bad escape behind the relay path': get('/relay%'),
  'a GET in absolute form': get('http://localhost/rest'),
  'a GET that announces a body of no bytes': (offer) => [lines('GET /rest HTTP/1.1', 'Host: localhost', ...offer, 'Content-Length: 0')],
  'a GET with a body': (offer) => [lines('GET /rest HTTP/1.1', 'Host: localhost', JSON_TYPE, ...offer, 'Content-Length: 7') + SMALL],
  'a GET with a chunked body': (offer) => [lines('GET /rest HTTP/1.1', 'Host: localhost', JSON_TYPE, ...offer, 'Transfer-Encoding: chunked') + chunked(SMALL)],
  'a GET without Host': (offer) => [lines('GET /rest HTTP/1.1', ...offer)],
  'a GET with HTTP/1.0': (offer) => [lines('GET /rest HTTP/1.0', 'Host: localhost', ...offer)],
  'an OPTIONS': (offer) => [lines('OPTIONS /rest HTTP/1.1', 'Host: localhost', ...offer)],
  'an OPTIONS *': (offer) => [lines('OPTIONS * HTTP/1.1', 'Host: localhost', ...offer)],
  'a DELETE to nowhere': (offer) => [lines('DELETE /rest HTTP/1.1', 'Host: localhost', ...offer)],
  'a method that Node does not know': (offer) => [lines('RELAY /rest HTTP/1.1', 'Host: localhost', ...offer)],
  'a POST with Content-Length': post(['Content-Length: 7'], SMALL),
  'a POST with Content-Length: 0': post(['Content-Length: 0']),
  'a POST without a length': post([]),
  'a POST with a large body': post([`Content-Length: ${LARGE.length}`], LARGE),
  'a POST with a chunked body': post(['Transfer-Encoding: chunked'], chunked('{"a"', ':1}')),
  'a POST with a large chunked body': post(['Transfer-Encoding: chunked'], chunked(LARGE.slice(0, 70_000), LARGE.slice(70_000))),
  'a POST with a trailer': post(['Transfer-Encoding: chunked', 'Trailer: X-Sum'], '7\r\n{"a":1}\r\n0\r\nX-Sum: 1\r\n\r\n'),
  'a POST with a bad chunk': post(['Transfer-Encoding: chunked'], 'zz\r\n'),
  'a POST with both lengths': post(['Content-Length: 7', 'Transfer-Encoding: chunked'], chunked(SMALL)),
  'a POST with two lengths': post(['Content-Length: 7', 'Content-Length: 8'], SMALL),
  'a POST of JSON that is none': post(['Content-Length: 7'], '{"a":1['),
  'a POST that expects 100-continue': post(['Content-Length: 7', 'Expect: 100-continue'], '', SMALL),
  'a chunked POST that expects 100-continue': post(['Transfer-Encoding: chunked', 'Expect: 100-continue'], '', chunked(SMALL)),
  'a POST that expects something else': post(['Content-Length: 7', 'Expect: 200-ok'], SMALL),
  'a POST to the path of the relay route': (offer) => [lines('POST /relay HTTP/1.1', 'Host: localhost', JSON_TYPE, ...offer, 'Content-Length: 7') + SMALL],
  'a second GET on the same connection': (offer) => [...get('/rest')(offer), ...get('/slow')(offer)],
  'a GET behind a POST on the same connection': (offer) => [...post(['Content-Length: 7'], SMALL)(offer), ...get('/rest')(offer)],
  'two GETs at once': together(get('/rest'), get('/slow')),
  'three GETs at once': together(get('/slow'), get('/rest'), get('/nowhere')),
  'two GETs at once, the second without an offer': together(get('/rest'), plain(get('/slow'))),
  'two GETs at once, the first without an offer': together(plain(get('/slow')), get('/rest')),
  'a POST and a GET at once': together(post(['Content-Length: 7'], SMALL), get('/rest')),
  'a chunked POST and a GET at once': together(post(['Transfer-Encoding: chunked'], chunked(SMALL)), get('/rest')),
  'three at once, the last with an offer': together(plain(get('/slow')), plain(post(['Content-Length: 7'], SMALL)), get('/rest'))
}

/** All that a server says to these writes, and how it ends; dates are left out. */
async function converse (t: Test, app: FastifyInstance, writes: string[]): Promise<string> {
  const client = await RawClient.dial(t, app)
  let said = ''
  // What the server has to say is there when other connections were served behind it. Node may have nothing to say:
  // it leaves requests unanswered that came in one segment with an offer it did not take.
  const listen = async (isEnough: () => boolean): Promise<void> => {
    for (let turns = 0; turns < 10 && !isEnough() && !client.socket.destroyed; turns++) await serveAnother(t, app)
    await serveAnother(t, app)
    said += (await client.read(client.unread.length)).toString('latin1')
  }
  for (const write of writes) {
    if (client.socket.destroyed) break
    client.socket.write(write)
    await listen(() => client.unread !== '')
  }
  if (!client.socket.destroyed) {
    client.socket.write(lines('GET /last HTTP/1.1', 'Host: localhost'))
    await listen(() => client.unread.endsWith('the last'))
  }
  const state = client.socket.destroyed ? 'closed' : 'open'
  client.socket.destroy()
  return said.replace(/^date: .*\r\n/gim, '') + `(${state})`
}

async function serveAnother (t: Test, app: FastifyInstance): Promise<void> {
  const client = await RawClient.dial(t, app)
  await client.send(lines('GET /slow HTTP/1.1', 'Host: localhost', 'Connection: close'))
  await client.readToEnd()
}

async function startBoth (t: Test): Promise<[without: FastifyInstance, withPlugin: FastifyInstance]> {
  const without = Fastify()
  addRest(without)
  await startListening(t, without)
  const withPlugin = await startApp(t, (app) => {
    app.relay('/relay')
    app.relay('/relay/:network/of')
    addRest(app)
  }, { relay: roomy })
  return [without, withPlugin]
}

for (const [offered, offer] of Object.entries(offers)) {
  t.test(`with the offer of ${offered}`, async (t) => {
    const [without, withPlugin] = await startBoth(t)
    for (const [what, ask] of Object.entries(requests)) {
      await t.test(`${what} is answered as without the plugin`, async (t) => {
        const expected = await converse(t, without, ask(offer))
        if (offer.length === 0) t.match(expected, /^HTTP\/1\.1 \d/, 'there is an answer to compare')
        t.equal(await converse(t, withPlugin, ask(offer)), expected)
      })
    }
    t.match(withPlugin.relayHub.stats(), { attached: 0, refused: {} })
  })
}
