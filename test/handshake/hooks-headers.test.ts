import type { FastifyReply } from 'fastify'
import t from 'tap'
import { lines } from '../helpers/handshake-table.ts'
import { RawClient, upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, testJoined, testRefusal } from '../helpers/relay-app.ts'

// What hooks set on their way to a 101: harmless headers are on it, others not, hostile ones never reach the wire.

type SetHeaders = (reply: FastifyReply) => unknown

const bare = ['HTTP/1.1 101 Switching Protocols', 'Connection: Upgrade', 'Upgrade: spanza']

t.test('a 101 has', async (t) => {
  const cases: Record<string, [SetHeaders, string[]]> = {
    'a header of a hook': [(reply) => reply.header('X-Name', 'value'), ['x-name: value']],
    'several cookies, a line each': [(reply) => reply.header('Set-Cookie', 'a=1').header('set-cookie', 'b=2').header('Set-Cookie', ['c=3', 'd=4']),
      ['set-cookie: a=1', 'set-cookie: b=2', 'set-cookie: c=3', 'set-cookie: d=4']],
    'cookies of the raw response': [(reply) => reply.raw.setHeader('Set-Cookie', ['a=1', 'b=2']), ['set-cookie: a=1', 'set-cookie: b=2']],
    'what was added to a header of the raw response': [(reply) => reply.raw.appendHeader('X-Name', 'a').appendHeader('x-name', 'b'), ['x-name: a', 'x-name: b']],
    'the reply\'s value where the raw response has another': [(reply) => { reply.raw.setHeader('X-NAME', 'raw'); reply.header('x-name', 'reply') }, ['x-name: reply']],
    'a number': [(reply) => reply.header('x-number', 7), ['x-number: 7']],
    'an empty value': [(reply) => reply.header('x-name', ''), ['x-name: ']],
    'an empty value for undefined': [(reply) => reply.header('x-name', undefined), ['x-name: ']],
    'no line for an empty list': [(reply) => reply.header('x-name', []), []],
    'no header that was removed again': [(reply) => reply.header('x-name', 'value').removeHeader('X-Name'), []],
    // Node writes as UTF-8 what it flushes; no byte of it can be CR or LF.
    'letters of latin1': [(reply) => reply.header('x-name', '\u00e9'), ['x-name: \u00c3\u00a9']],
    'a tab': [(reply) => reply.header('x-name', 'a\tb'), ['x-name: a\tb']],
    'a large value': [(reply) => reply.header('x-name', 'x'.repeat(20_000)), [`x-name: ${'x'.repeat(20_000)}`]],
    'a name that objects have of themselves': [(reply) => reply.header('constructor', 'a').header('x-name', 'b'), ['constructor: a', 'x-name: b']],
    'CORS headers': [(reply) => reply.headers({ 'Access-Control-Allow-Origin': '*', Vary: 'Origin' }), ['access-control-allow-origin: *', 'vary: Origin']],
    'no length': [(reply) => { reply.header('Content-Length', 5).raw.setHeader('Content-Length', 6) }, []],
    'no transfer coding': [(reply) => { reply.header('Transfer-Encoding', 'chunked').raw.setHeader('Transfer-Encoding', 'chunked') }, []],
    'no other connection option': [(reply) => { reply.header('Connection', 'close').raw.setHeader('Connection', 'keep-alive') }, []],
    'no other protocol': [(reply) => { reply.header('Upgrade', 'websocket').raw.setHeader('Upgrade', 'h2c') }, []],
    'nothing that was announced for behind the content': [(reply) => { reply.trailer('x-sum', async () => '17').raw.setHeader('Trailer', 'x-other') }, []],
    'no other framing': [(reply) => { reply.header('Spanza-Framing', 'wg').raw.setHeader('SPANZA-MAX-PACKET', '1') }, []],
    'no date': [(reply) => { reply.header('Date', 'now').raw.setHeader('Date', 'now'); reply.raw.sendDate = true }, []],
    'no other status': [(reply) => { reply.code(401); reply.raw.statusCode = 402; reply.raw.statusMessage = 'a\r\nInjected: yes' }, []],
    'nothing for a content type': [(reply) => reply.type('text/html'), []]
  }
  for (const [what, [set, expected]] of Object.entries(cases)) {
    await t.test(what, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async (_request, reply) => { set(reply) } }))
      const client = await RawClient.dial(t, app)
      const { head } = await client.upgrade(t, '/relay')
      t.equal(head, lines(...bare, ...expected))
      await testJoined(t, client, await openBare(t, app, '/relay'))
    })
  }

  await t.test('early hints of a hook before it', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', {
      onRequest: async (_request, reply) => { reply.raw.writeEarlyHints({ link: '</style.css>; rel=preload' }) }
    }))
    const client = await RawClient.dial(t, app)
    await client.send(upgradeText('/relay'))
    t.match(await client.head(), { statusCode: 103, headers: { link: '</style.css>; rel=preload' } })
    t.equal((await client.head()).head, lines(...bare))
  })
})

const hostile: Record<string, SetHeaders> = {
  'CR and LF in a cookie among others': (reply) => reply.header('Set-Cookie', ['a=1', 'b=2\r\nInjected: yes', 'c=3']),
  'an end of the headers': (reply) => reply.header('x-name', 'a\r\n\r\nInjected'),
  'CR and LF in a name': (reply) => reply.header('x-name: a\r\nInjected', 'yes'),
  'a space in a name': (reply) => reply.header('x name', 'a'),
  'a colon in a name': (reply) => reply.header('x-name: a, Injected', 'yes'),
  'no name': (reply) => reply.header('', 'Injected'),
  'letters of a name beyond ASCII': (reply) => reply.header('x-naïve', 'Injected'),
  'letters beyond latin1': (reply) => reply.header('x-name', 'Injected č'),
  'letters that become CR and LF when they are cut to a byte': (reply) => reply.header('x-name', 'a\u010d\u010aInjected: yes'),
  'a control character': (reply) => reply.header('x-name', 'Injected\u007f'),
  'an object': (reply) => reply.header('x-name', { toString: () => 'Injected' }),
  'an object that cannot be a string': (reply) => reply.header('x-name', Object.create(null)),
  'a symbol': (reply) => reply.header('x-name', Symbol('Injected')),
  'a list in a list': (reply) => reply.header('x-name', [['a', 'Injected']] as unknown as string[]),
  'CR and LF in a length': (reply) => reply.header('Content-Length', '4\r\nInjected: yes')
}

t.test('a 101 is refused to a hook that sets a header to', async (t) => {
  for (const [what, set] of Object.entries(hostile)) {
    await t.test(what, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { preHandler: async (_request, reply) => { set(reply) } }))
      const { head, body } = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 500, code: 'FST_RELAY_ANSWER_HEADER' })
      t.notMatch(head, /Injected/)
      t.notMatch(body, /^Injected/m)
    })
  }
})

t.test('Node itself refuses to set on the raw response', async (t) => {
  const refused: Record<string, SetHeaders> = {
    'CR and LF': (reply) => reply.raw.setHeader('x-name', 'a\r\nInjected: yes'),
    'CR and LF in a name': (reply) => reply.raw.setHeader('x\r\nInjected', 'yes'),
    'CR and LF in one of several values': (reply) => reply.raw.setHeader('x-name', ['a', 'b\r\nInjected: yes']),
    'letters beyond latin1': (reply) => reply.raw.setHeader('x-name', 'Injected č')
  }
  for (const [what, set] of Object.entries(refused)) {
    await t.test(`${what}, and the hook has failed`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { onRequest: async (_request, reply) => { set(reply) } }))
      const { head } = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 500, toldCode: what === 'CR and LF in a name' ? 'ERR_INVALID_HTTP_TOKEN' : 'ERR_INVALID_CHAR' })
      t.notMatch(head, /Injected/)
    })
  }

  await t.test('or where the hook cares for nothing, there is a 101', async (t) => {
    const app = await startApp(t, (app) => app.relay('/relay', {
      onRequest: async (_request, reply) => { for (const set of Object.values(refused)) t.throws(() => set(reply)) }
    }))
    const client = await RawClient.dial(t, app)
    t.equal((await client.upgrade(t, '/relay')).head, lines(...bare))
  })
})

t.test('a refusal by the deadline has no headers of hooks', async (t) => {
  const cases: Record<string, SetHeaders> = {
    'a transfer coding of the raw response': (reply) => reply.raw.setHeader('Transfer-Encoding', 'chunked'),
    'a length of the raw response': (reply) => reply.raw.setHeader('Content-Length', '3'),
    'a connection option of the raw response': (reply) => reply.raw.setHeader('Connection', 'keep-alive'),
    'an encoding of the raw response': (reply) => reply.raw.setHeader('Content-Encoding', 'gzip'),
    'a status message of the raw response': (reply) => { reply.raw.statusMessage = 'Injected' },
    'CR and LF in a status message of the raw response': (reply) => { reply.raw.statusMessage = 'a\r\nInjected: yes' },
    'hostile ones of the reply': (reply) => reply.header('x-name', 'a\r\nInjected: yes')
  }
  for (const [what, set] of Object.entries(cases)) {
    await t.test(what, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { onRequest: (_request, reply) => { set(reply) } }), { relay: { handshakeTimeout: 20 } })
      const { head, headers, body } = await testRefusal(t, app, upgradeText('/relay'), { statusCode: 503, code: 'FST_RELAY_HANDSHAKE_TIMEOUT' })
      t.match(head, /^HTTP\/1\.1 503 Service Unavailable\r\n/)
      t.same(Object.keys(headers).sort(), ['connection', 'content-length', 'content-type', 'date', 'retry-after'])
      t.equal(headers['content-length'], String(Buffer.byteLength(body)))
    })
  }
})
