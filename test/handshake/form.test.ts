import type { FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import { lines, refused, served, startTable, switched, testTable, unparsable, type Expected } from '../helpers/handshake-table.ts'
import { RawClient } from '../helpers/raw-client.ts'

const upgrade = ['Host: localhost', 'Connection: Upgrade', 'Upgrade: spanza']
const ask = (...headers: string[]): string => lines('GET /relay HTTP/1.1', ...upgrade, ...headers)
const requestLine = (line: string): string => lines(line, ...upgrade)
const target = (target: string): string => requestLine(`GET ${target} HTTP/1.1`)

const notAPath = refused(400, 'FST_RELAY_REQUEST_TARGET', 'The target of an upgrade request must be a path, as in "GET /relay HTTP/1.1"')
const withBody = (header: string): Expected => refused(400, 'FST_RELAY_BODY', `An upgrade request must not have a body, this one has the header ${header}`)
const versioned = (number: string): Expected => refused(400, 'FST_RELAY_HTTP_VERSION', `An upgrade needs HTTP/1.1, this request is HTTP/${number}`)
const notSpoken = (asked: string): Expected =>
  refused(400, 'FST_RELAY_PROTOCOL', `This relay does not speak "${asked}", only: spanza, UoTLV/1, websocket`, { upgrade: 'spanza, UoTLV/1, websocket', connection: 'close, upgrade' })

// What no relay route claims is the app's, as every other request: a 404 or a 400 of Fastify, on a connection that goes on.
const notFound = (path: string): Expected => served(404, JSON.stringify({ message: `Route GET:${path} not found`, error: 'Not Found', statusCode: 404 }))
const badUrl = (path: string): Expected =>
  served(400, JSON.stringify({ error: 'Bad Request', code: 'FST_ERR_BAD_URL', message: `'${path}' is not a valid url component`, statusCode: 400 }))

const canHideHeaders = process.versions.node.startsWith('20.')

t.test('the request line', async (t) => {
  const app = await startTable(t)
  await testTable(t, app, [
    ['a path', target('/relay'), switched()],
    ['absolute form', target('http://localhost/relay'), notAPath],
    ['absolute form with another host than Host has', target('http://other.example.com/relay'), notAPath],
    ['absolute form with https', target('https://localhost/relay'), notAPath],
    ['absolute form in capitals', target('HTTP://LOCALHOST/relay'), notAPath],
    ['absolute form without a path', target('http://localhost'), notFound('http://localhost')],
    ['absolute form of another scheme', target('ftp://localhost/relay'), badUrl('ftp://localhost/relay')],
    ['absolute form, of no relay route', target('http://localhost/nowhere'), notFound('http://localhost/nowhere')],
    ['absolute form, of a REST route', target('http://localhost/alive'), served(200, 'alive')],
    ['asterisk form', target('*'), notFound('*')],
    ['authority form', target('localhost:80'), unparsable()],
    ['authority form without a port', target('localhost'), unparsable()],
    ['authority form with IPv6', target('[::1]:80'), unparsable()],
    ['no slash at the beginning', target('relay'), unparsable()],
    ['an encoded slash at the beginning', target('%2Frelay'), unparsable()],
    ['a backslash at the beginning', target('\\relay'), unparsable()],
    ['a query alone', target('?x'), unparsable()],
    ['no target', requestLine('GET HTTP/1.1'), unparsable()],
    ['HTTP/1.0', requestLine('GET /relay HTTP/1.0'), versioned('1.0')],
    ['HTTP/1.0 with keep-alive', lines('GET /relay HTTP/1.0', 'Host: localhost', 'Connection: keep-alive, Upgrade', 'Upgrade: spanza'), versioned('1.0')],
    ['HTTP/1.0 without Host', lines('GET /relay HTTP/1.0', 'Connection: Upgrade', 'Upgrade: spanza'),
      refused(400, 'FST_RELAY_HOST_HEADER', 'An upgrade request must have exactly one Host header, this one has none')],
    ['HTTP/1.2', requestLine('GET /relay HTTP/1.2'), unparsable()],
    ['HTTP/1.10', requestLine('GET /relay HTTP/1.10'), unparsable()],
    ['HTTP/2.0', requestLine('GET /relay HTTP/2.0'), versioned('2.0')],
    ['HTTP/3.0', requestLine('GET /relay HTTP/3.0'), unparsable()],
    ['HTTP/0.9', requestLine('GET /relay HTTP/0.9'), versioned('0.9')],
    ['no version, which is HTTP/0.9', requestLine('GET /relay'), versioned('0.9')],
    ['http/1.1', requestLine('GET /relay http/1.1'), unparsable()],
    ['a version of another protocol', requestLine('GET /relay SPANZA/1.1'), unparsable()],
    ['two blanks before the target, which Node takes', requestLine('GET  /relay HTTP/1.1'), switched()],
    ['two blanks behind the target, which Node takes', requestLine('GET /relay  HTTP/1.1'), switched()],
    ['a tab', requestLine('GET\t/relay HTTP/1.1'), unparsable()],
    ['a blank at the end', requestLine('GET /relay HTTP/1.1 '), unparsable()],
    ['empty lines before it (RFC 9112, section 2.2)', '\r\n\r\n' + ask(), switched()],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', unparsable()],
    ['a TLS handshake', Buffer.from('16030100050100000103', 'hex'), unparsable()],
    ['a WireGuard handshake', Buffer.concat([Buffer.from([1, 0, 0, 0]), Buffer.alloc(144, 0x5a)]), unparsable()]
  ])
})

t.test('the path', async (t) => {
  const app = await startTable(t)
  await testTable(t, app, [
    ['a query', target('/relay?x=1&y=2'), switched()],
    ['an empty query', target('/relay?'), switched()],
    ['question marks, slashes and dots in the query', target('/relay?a?b/../c'), switched()],
    ['bad escapes in the query', target('/relay?x=%zz&%'), switched()],
    ['a semicolon in the query', target('/relay?x=1;y=2'), switched()],
    ['a query of 10,000 bytes', target(`/relay?${'x'.repeat(10_000)}`), switched()],
    ['a fragment, which Fastify leaves out', target('/relay#x'), switched()],
    ['a fragment behind a query', target('/relay?x#y'), switched()],
    ['an escaped letter', target('/%72elay'), switched()],
    ['all letters escaped', target('/%72%65%6C%61%79'), switched()],
    ['a semicolon', target('/relay;x=1'), notFound('/relay;x=1')],
    ['capitals', target('/RELAY'), notFound('/RELAY')],
    ['a slash at the end', target('/relay/'), notFound('/relay/')],
    ['two slashes at the end', target('/relay//'), notFound('/relay//')],
    ['two slashes at the beginning', target('//relay'), notFound('//relay')],
    ['what looks like a host', target('//localhost/relay'), notFound('//localhost/relay')],
    ['an escaped slash', target('/%2Frelay'), notFound('/%2Frelay')],
    ['a backslash at the end', target('/relay\\'), notFound('/relay\\')],
    ['a segment of two dots', target('/relay/../relay'), notFound('/relay/../relay')],
    ['a segment of two dots at the beginning', target('/../relay'), notFound('/../relay')],
    ['a segment of one dot', target('/./relay'), notFound('/./relay')],
    ['escaped dots', target('/relay/%2e%2e/relay'), notFound('/relay/%2e%2e/relay')],
    ['an escaped NUL', target('/relay%00'), notFound('/relay%00')],
    ['10,000 bytes', target(`/relay${'x'.repeat(10_000)}`), notFound(`/relay${'x'.repeat(10_000)}`)],
    ['quotes and angle brackets', target('/relay|"<>'), notFound('/relay|"<>')],
    ['a bad escape', target('/%zz'), badUrl('/%zz')],
    ['a bad escape behind the path', target('/relay%zz'), badUrl('/relay%zz')],
    ['a lone percent sign', target('/relay%'), badUrl('/relay%')],
    ['half an escape', target('/relay%2'), badUrl('/relay%2')],
    ['an overlong slash', target('/relay%c0%af'), badUrl('/relay%c0%af')],
    ['an overlong letter', target('/%c1%b2elay'), badUrl('/%c1%b2elay')],
    ['bytes that are no UTF-8', target('/relay%ff'), badUrl('/relay%ff')],
    ['a control character', target('/rel\x01ay'), unparsable()],
    ['NUL', target('/relay\0'), unparsable()],
    ['DEL', target('/relay\x7f'), unparsable()],
    ['bytes above ASCII', target('/relay\u00e4'), unparsable()]
  ])
})

t.test('a parameter of the path', async (t) => {
  const app = await startTable(t, (app) => app.relay('/nets/:name'))
  const names: Array<[title: string, path: string, name: string]> = [
    ['letters', '/nets/home', 'home'],
    ['none', '/nets/', ''],
    ['an escaped slash: no other segment, and told apart from one', '/nets/a%2fb', 'a%2Fb'],
    ['an escaped escape', '/nets/a%252fb', 'a%252fb'],
    ['a segment of two dots', '/nets/..', '..'],
    ['escaped dots', '/nets/%2e%2e', '..'],
    ['an escaped NUL', '/nets/%00', '\0'],
    ['UTF-8', '/nets/%F0%9F%98%80', '\u{1f600}'],
    ['a plus sign, which is no blank', '/nets/a+b%20c', 'a+b c'],
    ['a query behind it', '/nets/a?b=c/d', 'a'],
    ['the name of a property that every object has', '/nets/__proto__', '__proto__'],
    ['100 letters', `/nets/${'x'.repeat(100)}`, 'x'.repeat(100)]
  ]
  for (const [title, path, name] of names) {
    await t.test(title, async (t) => {
      const client = await RawClient.dial(t, app)
      await client.send(target(path))
      t.equal((await client.head()).statusCode, 101)
      t.match(app.relayHub.channels(), [{ name, scope: '/nets/:name' }])
      const detached = new Promise((resolve) => app.relayHub.once('detach', resolve))
      client.socket.destroy()
      await detached
    })
  }
  const long = `/nets/${'x'.repeat(101)}`
  await testTable(t, app, [
    ['two segments', target('/nets/a/b'), notFound('/nets/a/b')],
    ['a bad escape', target('/nets/%zz'), badUrl('/nets/%zz')],
    ['an overlong slash', target('/nets/%c0%af'), badUrl('/nets/%c0%af')],
    ['half of a pair of surrogates', target('/nets/%ED%A0%80'), badUrl('/nets/%ED%A0%80')],
    ['101 letters: longer than maxParamLength', target(long),
      served(414, JSON.stringify({ error: 'Bad Request', code: 'FST_ERR_MAX_PARAM_LENGTH', message: `'${long}' is exceeding the max param length`, statusCode: 414 }))]
  ])
})

t.test('a body', async (t) => {
  const app = await startTable(t)
  await testTable(t, app, [
    ['Content-Length: 0 is none', ask('Content-Length: 0'), switched()],
    ['Content-Length: 5, and 5 bytes', ask('Content-Length: 5') + 'hello', withBody('Content-Length')],
    ['Content-Length: 5, and nothing', ask('Content-Length: 5'), withBody('Content-Length')],
    ['Content-Length: 5, and more', ask('Content-Length: 5') + 'hello, what next', withBody('Content-Length')],
    ['Content-Length: 00', ask('Content-Length: 00'), withBody('Content-Length')],
    ['two Content-Lengths that agree', ask('Content-Length: 5', 'Content-Length: 5') + 'hello', unparsable()],
    ['two Content-Lengths that differ', ask('Content-Length: 5', 'Content-Length: 6') + 'hello', unparsable()],
    ['two Content-Lengths, the second of nothing', ask('Content-Length: 5', 'Content-Length: 0') + 'hello', unparsable()],
    ['two Content-Lengths, the first of nothing', ask('Content-Length: 0', 'Content-Length: 5') + 'hello', unparsable()],
    ['two Content-Lengths of nothing', ask('Content-Length: 0', 'Content-Length: 0'), unparsable()],
    ['a list of Content-Lengths', ask('Content-Length: 0, 0'), unparsable()],
    ['Content-Length below zero', ask('Content-Length: -1'), unparsable()],
    ['Content-Length with a sign', ask('Content-Length: +0'), unparsable()],
    ['Content-Length in hexadecimal', ask('Content-Length: 0x0'), unparsable()],
    ['Content-Length of letters', ask('Content-Length: abc'), unparsable()],
    ['Content-Length with a blank in it', ask('Content-Length: 0 0'), unparsable()],
    ['Content-Length above 64 bits', ask('Content-Length: 99999999999999999999999'), unparsable()],
    ['an empty Content-Length', ask('Content-Length:'), unparsable()],
    ['Transfer-Encoding: chunked, and a body of nothing', ask('Transfer-Encoding: chunked') + '0\r\n\r\n', withBody('Transfer-Encoding')],
    ['Transfer-Encoding: chunked, and a body', ask('Transfer-Encoding: chunked') + '5\r\nhello\r\n0\r\n\r\n', withBody('Transfer-Encoding')],
    ['Transfer-Encoding: chunked, and nothing', ask('Transfer-Encoding: chunked'), withBody('Transfer-Encoding')],
    ['Transfer-Encoding: gzip, chunked', ask('Transfer-Encoding: gzip, chunked'), withBody('Transfer-Encoding')],
    ['Transfer-Encoding: gzip', ask('Transfer-Encoding: gzip'), withBody('Transfer-Encoding')],
    ['Transfer-Encoding: identity', ask('Transfer-Encoding: identity'), withBody('Transfer-Encoding')],
    ['Transfer-Encoding: xchunked', ask('Transfer-Encoding: xchunked'), withBody('Transfer-Encoding')],
    ['an empty Transfer-Encoding, which Node refuses itself since 22', ask('Transfer-Encoding:'), canHideHeaders ? withBody('Transfer-Encoding') : unparsable()],
    ['Transfer-Encoding: chunked, identity', ask('Transfer-Encoding: chunked, identity'), unparsable()],
    ['Transfer-Encoding: chunked twice', ask('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'), unparsable()],
    ['both, Content-Length first', ask('Content-Length: 5', 'Transfer-Encoding: chunked'), unparsable()],
    ['both, Transfer-Encoding first', ask('Transfer-Encoding: chunked', 'Content-Length: 5'), unparsable()],
    ['both, of nothing', ask('Transfer-Encoding: chunked', 'Content-Length: 0') + '0\r\n\r\n', unparsable()],
    ['Expect: 100-continue without a body is of no effect', ask('Expect: 100-continue'), switched()],
    ['any other expectation, too', ask('Expect: 200-ok'), switched()],
    ['Expect: 100-continue with a body', ask('Expect: 100-continue', 'Content-Length: 5'), withBody('Content-Length')],
    ['TE and Trailer announce no body', ask('TE: trailers', 'Trailer: X'), switched()]
  ])
})

/** The lines of a head in which one may be replaced, last comes `Upgrade`. */
const begun = 'GET /relay HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n'
const ended = 'Upgrade: spanza\r\n\r\n'

const strictAndLenient: Array<[title: string, sent: string | Buffer, strict: Expected, lenient: Expected]> = [
  ['LF alone at every end', ask().replaceAll('\r\n', '\n'), unparsable(), switched()],
  ['LF alone behind the request line', ask().replace('\r\n', '\n'), unparsable(), switched()],
  ['LF alone behind a header', begun.replace('localhost\r', 'localhost') + ended, unparsable(), switched()],
  ['LF alone behind the last header', begun + 'Upgrade: spanza\n\r\n', unparsable(), switched()],
  ['LF alone as the empty line', begun + 'Upgrade: spanza\r\n\n', unparsable(), switched()],
  ['CR alone in a value', `${begun}X: a\rb\r\n${ended}`, unparsable(), unparsable()],
  ['CR alone behind a header', `${begun}X: a\r${ended}`, unparsable(), unparsable()],
  ['CR CR LF', `${begun}X: a\r\r\n${ended}`, unparsable(), unparsable()],
  ['obs-fold', `${begun}Upgrade: h2c,\r\n spanza\r\n\r\n`, unparsable(), switched()],
  ['obs-fold with a tab', `${begun}Upgrade: h2c,\r\n\tspanza\r\n\r\n`, unparsable(), switched()],
  ['obs-fold of what would be a body', `${begun}X: a\r\n Transfer-Encoding: chunked\r\n${ended}`, unparsable(), switched()],
  ['obs-fold before Transfer-Encoding\'s value', `${begun}Transfer-Encoding:\r\n chunked\r\n${ended}`, unparsable(), withBody('Transfer-Encoding')],
  ['obs-fold before Content-Length\'s value', `${begun}Content-Length:\r\n 5\r\n${ended}`, unparsable(), withBody('Content-Length')],
  ['a blank before the first header', `GET /relay HTTP/1.1\r\n Transfer-Encoding: chunked\r\n${lines(...upgrade)}`, unparsable(), withBody('Transfer-Encoding')],
  ['a blank before the colon of Transfer-Encoding', `${begun}Transfer-Encoding : chunked\r\n${ended}`, unparsable(), withBody('Transfer-Encoding')],
  ['two blanks before the colon of Transfer-Encoding', `${begun}Transfer-Encoding  : chunked\r\n${ended}`, unparsable(), withBody('Transfer-Encoding')],
  ['a tab before the colon of Transfer-Encoding', `${begun}Transfer-Encoding\t: chunked\r\n${ended}`, unparsable(), unparsable()],
  ['a blank before the colon of Content-Length', `${begun}Content-Length : 5\r\n${ended}`, unparsable(), withBody('Content-Length')],
  ['a blank before the colon of Content-Length: 0', `${begun}Content-Length : 0\r\n${ended}`, unparsable(), withBody('Content-Length')],
  ['a blank before the colon of Upgrade: no token', `${begun}Upgrade : spanza\r\n\r\n`, unparsable(), notSpoken('')],
  ['a blank before the colon of Host', `GET /relay HTTP/1.1\r\nHost : localhost\r\nConnection: Upgrade\r\n${ended}`, unparsable(), unparsable()],
  ['a blank before the colon of a second Host', `${begun}Host : other\r\n${ended}`, unparsable(), unparsable()],
  ['no colon', `${begun}X\r\n${ended}`, unparsable(), unparsable()],
  ['no name', `${begun}: x\r\n${ended}`, unparsable(), unparsable()],
  ['a name with a character that is none of a token', `${begun}X(y): x\r\n${ended}`, unparsable(), unparsable()],
  ['a name with NUL', `${begun}X\0: x\r\n${ended}`, unparsable(), unparsable()],
  ['NUL in a value', `${begun}X: a\0b\r\n${ended}`, unparsable(), switched()],
  ['BEL in a value', `${begun}X: a\x07b\r\n${ended}`, unparsable(), switched()],
  ['DEL in a value', `${begun}X: a\x7fb\r\n${ended}`, unparsable(), switched()],
  ['a control character in the token', `${begun}Upgrade: spa\x01nza\r\n\r\n`, unparsable(), notSpoken('spanza')],
  ['latin1 in a value', Buffer.from(`${begun}X: a\u00e4b\r\n${ended}`, 'latin1'), switched(), switched()],
  ['UTF-8 in a value', `${begun}X: \u{1f600}\r\n${ended}`, switched(), switched()],
  ['Content-Length and Transfer-Encoding', ask('Content-Length: 5', 'Transfer-Encoding: chunked'), unparsable(), withBody('Transfer-Encoding')],
  ['Transfer-Encoding and Content-Length', ask('Transfer-Encoding: chunked', 'Content-Length: 5'), unparsable(), withBody('Transfer-Encoding')],
  ['two Content-Lengths', ask('Content-Length: 0', 'Content-Length: 5') + 'hello', unparsable(), unparsable()],
  ['Content-Length below zero', ask('Content-Length: -1'), unparsable(), unparsable()],
  ['a control character before Transfer-Encoding\'s value', ask('Transfer-Encoding:\x0bchunked'), unparsable(), withBody('Transfer-Encoding')],
  ['HTTP/1.2', requestLine('GET /relay HTTP/1.2'), unparsable(), versioned('1.2')],
  ['a control character in the query', target('/relay?\x01'), unparsable(), unparsable()]
]

t.test('the lines of the head', async (t) => {
  await t.test('as Node parses them', async (t) => {
    const app = await startTable(t)
    await testTable(t, app, strictAndLenient.map(([title, sent, strict]) => [title, sent, strict]))
  })
  await t.test('with insecureHTTPParser', async (t) => {
    const app = await startTable(t, undefined, { server: { http: { insecureHTTPParser: true } } as FastifyServerOptions })
    await testTable(t, app, strictAndLenient.map(([title, sent, , lenient]) => [title, sent, lenient]))
  })
})

t.test('the size of the head', async (t) => {
  const startSized = async (t: Test, http: object) => await startTable(t, undefined, { server: { http } as FastifyServerOptions })

  // Node counts the target, names and values.
  const counted = ['/relay', 'Host', 'localhost', 'Connection', 'Upgrade', 'Upgrade', 'spanza', 'X'].join('').length
  const sized = (size: number): string => ask(`X: ${'x'.repeat(size - counted)}`)
  for (const [limit, http] of [[16_384, {}], [1024, { maxHeaderSize: 1024 }]] as const) {
    await t.test(`where Node takes less than ${limit} bytes`, async (t) => {
      const app = await startSized(t, http)
      await testTable(t, app, [
        ['far below', sized(limit / 2), switched()],
        ['just below', sized(limit - 1), switched()],
        ['at the limit', sized(limit), unparsable(431)],
        ['just over it', sized(limit + 1), unparsable(431)],
        ['a target over it', target(`/relay?${'x'.repeat(limit)}`), unparsable(431)],
        ['a name over it', ask(`${'X'.repeat(limit)}: x`), unparsable(431)],
        ['many small ones over it', ask(...Array.from({ length: limit / 16 }, (_, index) => `X-${index}: ${'x'.repeat(16)}`)), unparsable(431)]
      ])
    })
  }

  const numbered = (count: number, last = 'X: y'): string => ask(...Array(count - upgrade.length - 1).fill('X: y'), last)
  const tooMany = (limit: number) => refused(431, 'FST_RELAY_HEADERS', `An upgrade request must have fewer than ${limit} headers`)
  // Node 20 leaves out what is over its limit without a word, later versions refuse it.
  const overLimit = (limit: number) => canHideHeaders ? tooMany(limit) : unparsable(431)
  for (const [limit, maxHeadersCount] of [[1000, undefined], [50, 50]] as const) {
    await t.test(`where Node keeps ${limit} headers`, async (t) => {
      const app = await startTable(t)
      if (maxHeadersCount !== undefined) app.server.maxHeadersCount = maxHeadersCount
      await testTable(t, app, [
        ['just below', numbered(limit - 1), switched()],
        ['just below, the last one a body', numbered(limit - 1, 'Transfer-Encoding: chunked'), withBody('Transfer-Encoding')],
        ['at the limit', numbered(limit), tooMany(limit)],
        ['just over it', numbered(limit + 1), overLimit(limit)],
        ['just over it, the last one a body', numbered(limit + 1, 'Transfer-Encoding: chunked'), overLimit(limit)],
        ['just over it, the last one a second Host', numbered(limit + 1, 'Host: other'), overLimit(limit)],
        ['far over it, the last one a body', numbered(limit * 2, 'Transfer-Encoding: chunked'), overLimit(limit)]
      ])
    })
  }
  await t.test('where Node keeps all headers', async (t) => {
    const app = await startTable(t)
    app.server.maxHeadersCount = 0
    await testTable(t, app, [
      ['2,100 of them', numbered(2100), switched()],
      ['2,100 of them, the last one a body', numbered(2100, 'Transfer-Encoding: chunked'), withBody('Transfer-Encoding')]
    ])
  })
})
