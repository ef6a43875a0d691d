import t from 'tap'
import { closed, lines, refused, served, servedLast, startTable, switched, switchedToWebSocket, testTable, unparsable } from '../helpers/handshake-table.ts'
import { RawClient, requestText } from '../helpers/raw-client.ts'

const notSpoken = (asked: string, spoken = 'spanza, UoTLV/1, websocket') =>
  refused(400, 'FST_RELAY_PROTOCOL', `This relay does not speak "${asked}", only: ${spoken}`, { upgrade: spoken, connection: 'close, upgrade' })
const noFraming = (asked: string) =>
  refused(400, 'FST_RELAY_FRAMING', `No framing in common: asked for "${asked}", this route has: wg, len16, raw`)

/** A request for an upgrade with these headers, and nothing else but Host. */
const ask = (...headers: string[]): string => lines('GET /relay HTTP/1.1', 'Host: localhost', ...headers)

const webSocket = ['Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13']

const openedWebSocket = switchedToWebSocket('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=')

/** Where no upgrade is asked for. */
const upgradeRequired = servedLast(426, JSON.stringify({
  statusCode: 426, code: 'FST_RELAY_UPGRADE_REQUIRED', error: 'Upgrade Required', message: 'This is a relay: send Upgrade with one of: spanza, UoTLV/1, websocket'
}), { connection: 'close, upgrade', upgrade: 'spanza, UoTLV/1, websocket' })

t.test('the header Upgrade', async (t) => {
  const app = await startTable(t)
  const upgrade = (...values: string[]): string => ask('Connection: Upgrade', ...values.map((value) => `Upgrade: ${value}`))
  await testTable(t, app, [
    ['spanza', upgrade('spanza'), switched()],
    ['SPANZA', upgrade('SPANZA'), switched()],
    ['Spanza', upgrade('Spanza'), switched()],
    ['UoTLV/1', upgrade('UoTLV/1'), switched('UoTLV/1')],
    ['uotlv/1, answered in the spelling of the protocol', upgrade('uotlv/1'), switched('UoTLV/1')],
    ['UOTLV/1', upgrade('UOTLV/1'), switched('UoTLV/1')],
    ['blanks and tabs around the token', upgrade(' \t spanza \t '), switched()],
    ['no blank before the token', 'GET /relay HTTP/1.1\r\nHost:localhost\r\nConnection:Upgrade\r\nUpgrade:spanza\r\n\r\n', switched()],
    ['names of headers in any case', lines('GET /relay HTTP/1.1', 'hOST: localhost', 'CONNECTION: Upgrade', 'uPGRADE: spanza'), switched()],
    ['h2c, spanza: the first that is spoken', upgrade('h2c, spanza'), switched()],
    ['foo, UoTLV/1', upgrade('foo, UoTLV/1'), switched('UoTLV/1')],
    ['UoTLV/1, spanza: the client\'s order counts', upgrade('UoTLV/1, spanza'), switched('UoTLV/1')],
    ['spanza,UoTLV/1 without a blank', upgrade('spanza,UoTLV/1'), switched()],
    ['empty members of the list', upgrade(', ,spanza,,'), switched()],
    ['websocket, h2c, TLS/1.0, spanza', upgrade('websocket, h2c, TLS/1.0, spanza'), switched('websocket')],
    ['websocket with a key, spanza', ask('Connection: Upgrade', 'Upgrade: websocket, spanza', ...webSocket), openedWebSocket],
    ['spanza, websocket with a key', ask('Connection: Upgrade', 'Upgrade: spanza, websocket', ...webSocket), switched()],
    ['two headers, the second with what is spoken', upgrade('h2c', 'spanza'), switched()],
    ['two headers with the same', upgrade('spanza', 'spanza'), switched()],
    ['two headers with both', upgrade('UoTLV/1', 'spanza'), switched('UoTLV/1')],
    ['h2c', upgrade('h2c'), notSpoken('h2c')],
    ['websocket', upgrade('websocket'), switched('websocket')],
    ['WebSocket', upgrade('WebSocket'), switched('websocket')],
    ['websocket with a key', ask('Connection: Upgrade', 'Upgrade: websocket', ...webSocket), openedWebSocket],
    ['websocket with a key and no version', ask('Connection: Upgrade', 'Upgrade: websocket', webSocket[0]!),
      refused(426, 'FST_RELAY_WEBSOCKET_VERSION', 'This relay speaks version 13 of the WebSocket protocol, the request says: none',
        { upgrade: 'spanza, UoTLV/1, websocket', connection: 'close, upgrade', 'sec-websocket-version': '13' })],
    ['TLS/1.0', upgrade('TLS/1.0'), notSpoken('TLS/1.0')],
    ['spanza/2', upgrade('spanza/2'), notSpoken('spanza/2')],
    ['spanza/1', upgrade('spanza/1'), notSpoken('spanza/1')],
    ['UoTLV', upgrade('UoTLV'), notSpoken('UoTLV')],
    ['UoTLV/2', upgrade('UoTLV/2'), notSpoken('UoTLV/2')],
    ['spanza with something behind it', upgrade('spanzaX'), notSpoken('spanzaX')],
    ['spanza with something before it', upgrade('xspanza'), notSpoken('xspanza')],
    ['two tokens without a comma', upgrade('h2c spanza'), notSpoken('h2c spanza')],
    ['a semicolon instead of a comma', upgrade('h2c; spanza'), notSpoken('h2c; spanza')],
    ['a parameter', upgrade('spanza;v=1'), notSpoken('spanza;v=1')],
    ['quotes', upgrade('"spanza"'), notSpoken('"spanza"')],
    ['a star', upgrade('*'), notSpoken('*')],
    ['the name of a property that every object has', upgrade('__proto__, constructor, toString'), notSpoken('__proto__, constructor, toString')],
    ['two headers with nothing that is spoken', upgrade('h2c', 'TLS/1.0'), notSpoken('h2c, TLS/1.0')],
    ['bytes above ASCII', upgrade('sp\u00e4nza'), notSpoken('sp\u00c3\u00a4nza')],
    ['commas alone', upgrade(',,,'), notSpoken(',,,')],
    ['a very long list, spoken at its end', upgrade(`${'h2c, '.repeat(2000)}spanza`), switched()],
    ['a very long token', upgrade('x'.repeat(10_000)), notSpoken(`${'x'.repeat(255)}…`)]
  ])
})

t.test('the header Connection', async (t) => {
  const app = await startTable(t)
  const connection = (...values: string[]): string => ask(...values.map((value) => `Connection: ${value}`), 'Upgrade: spanza')
  await testTable(t, app, [
    ['Upgrade', connection('Upgrade'), switched()],
    ['upgrade', connection('upgrade'), switched()],
    ['UPGRADE', connection('UPGRADE'), switched()],
    ['keep-alive, Upgrade', connection('keep-alive, Upgrade'), switched()],
    ['upgrade,keep-alive', connection('upgrade,keep-alive'), switched()],
    ['Upgrade, HTTP2-Settings', connection('Upgrade, HTTP2-Settings'), switched()],
    ['close, Upgrade', connection('close, Upgrade'), switched()],
    ['empty members of the list', connection(', Upgrade ,'), switched()],
    ['two headers, Upgrade in the first', connection('Upgrade', 'keep-alive'), switched()],
    ['two headers, Upgrade in the second', connection('keep-alive', 'Upgrade'), switched()],
    ['behind Upgrade instead of before it', ask('Upgrade: spanza', 'Connection: Upgrade'), switched()],
    ['keep-alive alone: no upgrade is asked for', connection('keep-alive'), upgradeRequired],
    ['close alone', connection('close'), upgradeRequired],
    ['empty', connection(''), upgradeRequired],
    ['missing', ask('Upgrade: spanza'), upgradeRequired],
    ['a name that only contains it', connection('xupgrade'), upgradeRequired],
    ['a name that only begins with it', connection('upgraded'), upgradeRequired],
    ['no header Upgrade', ask('Connection: Upgrade'), upgradeRequired],
    ['neither', ask(), upgradeRequired],
    ['a header Upgrade without a value', ask('Connection: Upgrade', 'Upgrade:'), upgradeRequired]
  ])
})

t.test('the header Spanza-Framing', async (t) => {
  const app = await startTable(t, (app) => {
    app.relay('/relay')
    app.relay('/wg', { framings: ['wg'] })
  }, { relay: { maxPacketSize: 1420 } })
  const framing = (...values: string[]): string => ask('Connection: Upgrade', 'Upgrade: spanza', ...values.map((value) => `Spanza-Framing: ${value}`))
  const packets = (name: string) => switched('spanza', `Spanza-Framing: ${name}`, 'Spanza-Max-Packet: 1420')
  const raw = switched('spanza', 'Spanza-Framing: raw')
  await testTable(t, app, [
    ['missing: raw, of which the answer says nothing', framing(), switched()],
    ['wg', framing('wg'), packets('wg')],
    ['WG', framing('WG'), packets('wg')],
    ['len16', framing('len16'), packets('len16')],
    ['LEN16', framing('LEN16'), packets('len16')],
    ['raw', framing('raw'), raw],
    ['wg, len16: the first', framing('wg, len16'), packets('wg')],
    ['len16, wg: the client\'s order counts', framing('len16, wg'), packets('len16')],
    ['len16,wg without a blank', framing('len16,wg'), packets('len16')],
    ['one that is not known comes first', framing('cobs, wg'), packets('wg')],
    ['empty members of the list', framing(', ,wg,'), packets('wg')],
    ['two headers', framing('cobs', 'len16'), packets('len16')],
    ['two headers with the same', framing('raw', 'raw'), raw],
    ['the name in other letters', ask('Connection: Upgrade', 'Upgrade: spanza', 'SPANZA-FRAMING: wg'), packets('wg')],
    ['not known', framing('cobs'), noFraming('cobs')],
    ['none known', framing('cobs, slip'), noFraming('cobs, slip')],
    ['empty', framing(''), noFraming('')],
    ['empty twice', framing('', ''), noFraming('')],
    ['commas alone', framing(',,'), noFraming('')],
    ['a parameter', framing('wg;v=1'), noFraming('wg;v=1')],
    ['quotes', framing('"wg"'), noFraming('"wg"')],
    ['two without a comma', framing('wg len16'), noFraming('wg len16')],
    ['the name of a property that every object has', framing('__proto__, constructor'), noFraming('__proto__, constructor')],
    ['of no meaning under UoTLV/1', ask('Connection: Upgrade', 'Upgrade: UoTLV/1', 'Spanza-Framing: raw'), switched('UoTLV/1')],
    ['not even where it is not known', ask('Connection: Upgrade', 'Upgrade: UoTLV/1', 'Spanza-Framing: cobs'), switched('UoTLV/1')],
    ['missing, where the route does not have raw', lines('GET /wg HTTP/1.1', 'Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza'),
      refused(400, 'FST_RELAY_FRAMING', 'No framing in common: asked for "raw", this route has: wg')]
  ])
})

t.test('the method, with an upgrade on the path of a relay route', async (t) => {
  const app = await startTable(t, (app) => {
    app.relay('/relay')
    app.relay('/busy')
    app.post('/busy', async (request) => request.body)
    app.options('/busy', async () => 'options')
    app.delete('/busy', async () => 'deleted')
  })
  const upgrade = ['Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza']
  const notFound = (method: string) => served(404, JSON.stringify({ message: `Route ${method}:/relay not found`, error: 'Not Found', statusCode: 404 }))
  await testTable(t, app, [
    ['GET', lines('GET /relay HTTP/1.1', ...upgrade), switched()],
    ['POST: the app has no such route', lines('POST /relay HTTP/1.1', ...upgrade), notFound('POST')],
    ['POST with Content-Length: 0', lines('POST /relay HTTP/1.1', ...upgrade, 'Content-Length: 0'), notFound('POST')],
    ['PUT', lines('PUT /relay HTTP/1.1', ...upgrade), notFound('PUT')],
    ['DELETE', lines('DELETE /relay HTTP/1.1', ...upgrade), notFound('DELETE')],
    ['OPTIONS', lines('OPTIONS /relay HTTP/1.1', ...upgrade), notFound('OPTIONS')],
    ['POST, where the app has such a route: it is the app\'s, content and all',
      lines('POST /busy HTTP/1.1', ...upgrade, 'Content-Type: application/json', 'Content-Length: 7') + '{"a":1}', served(200, '{"a":1}')],
    ['OPTIONS, where the app has such a route', lines('OPTIONS /busy HTTP/1.1', ...upgrade), served(200, 'options')],
    ['DELETE, where the app has such a route', lines('DELETE /busy HTTP/1.1', ...upgrade), served(200, 'deleted')],
    ['GET, beside the others', lines('GET /busy HTTP/1.1', ...upgrade), switched()],
    ['CONNECT: Node closes what nobody listens for', lines('CONNECT /relay HTTP/1.1', ...upgrade), closed()],
    ['CONNECT with a target of its own form', lines('CONNECT localhost:443 HTTP/1.1', ...upgrade), closed()],
    ['get: methods have capitals', lines('get /relay HTTP/1.1', ...upgrade), unparsable()],
    ['one that Node does not know', lines('RELAY /relay HTTP/1.1', ...upgrade), unparsable()]
  ])
  await t.test('HEAD: the head of a 404, and the connection goes on', async (t) => {
    const client = await RawClient.dial(t, app)
    await client.send(lines('HEAD /relay HTTP/1.1', ...upgrade))
    t.equal((await client.head()).statusCode, 404)
    await client.send(requestText('/alive'))
    t.equal((await client.answer()).body, 'alive')
  })
})
