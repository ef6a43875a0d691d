import { randomBytes } from 'node:crypto'
import t from 'tap'
import { readIdentity, type Identified } from '../../lib/route/identified.ts'
import { upgradeText } from '../helpers/raw-client.ts'
import { openBare, startApp, testRefusal } from '../helpers/relay-app.ts'

const KEY = randomBytes(32)

t.test('what identify returns', async (t) => {
  const bad: Record<string, [unknown, RegExp]> = {
    'an empty id': [{ id: '' }, /unusable id: '', not a string of 1 to 255 characters$/],
    'an id that is a number': [{ id: 5 }, /unusable id: 5, not a string/],
    'an id that is null': [{ id: null }, /unusable id: null, not a string/],
    'a long id': [{ id: 'x'.repeat(256) }, /unusable id: 'xxx/],
    'a channel that is a number': [{ channel: 5 }, /unusable channel: 5, not a string of at most 255 characters$/],
    'a long channel': [{ channel: 'x'.repeat(256) }, /unusable channel: /],
    'a key that is no base64': [{ publicKey: 'secret' }, /unusable publicKey: 'secret', not a WireGuard public key, 44 characters as `wg pubkey` prints it or 32 bytes$/],
    'a key of 31 bytes': [{ publicKey: randomBytes(31) }, /unusable publicKey: /],
    'a key of 33 bytes in base64': [{ publicKey: randomBytes(33).toString('base64') }, /unusable publicKey: /],
    'a key in base64url': [{ publicKey: Buffer.alloc(32, 0xff).toString('base64url') + '=' }, /unusable publicKey: /],
    'a key without padding': [{ publicKey: KEY.toString('base64').slice(0, -1) }, /unusable publicKey: /],
    'a key with a line end': [{ publicKey: KEY.toString('base64') + '\n' }, /unusable publicKey: /],
    'a key in a spelling that wg would not print': [{ publicKey: 'A'.repeat(42) + 'B=' }, /unusable publicKey: /],
    'a key that is a number': [{ publicKey: 5 }, /unusable publicKey: 5, not a WireGuard public key/],
    nothing: [undefined, /unusable result: undefined, not an object; \{\} leaves every part to its default$/],
    null: [null, /unusable result: null, not an object/],
    'false, as a guard returns': [false, /unusable result: false, not an object/],
    'true, as a guard returns': [true, /unusable result: true, not an object/],
    'a channel without its object': ['home', /unusable result: 'home', not an object/],
    'a list': [[{ channel: 'home' }], /unusable result: \[ \[Object\] \], not an object/],
    'a misspelled part': [{ chanel: 'home' }, /unusable part chanel: did you mean channel\?$/],
    'a part in other letters': [{ publickey: 'x' }, /unusable part publickey: did you mean publicKey\?$/],
    'a part that is none': [{ id: 'a', network: 'home' }, /unusable part network: there are only id, channel, publicKey, context$/]
  }
  for (const [what, [identified, message]] of Object.entries(bad)) {
    await t.test(`${what} is refused`, async (t) => {
      const app = await startApp(t, (app) => app.relay('/relay', { identify: async () => identified as Identified }))
      await testRefusal(t, app, upgradeText('/relay'), { statusCode: 500, code: 'FST_RELAY_IDENTITY', message })
    })
  }

  const good: Record<string, [Identified, object]> = {
    'an empty object': [{}, { id: /^[0-9a-f-]{36}$/, channel: { name: 'home' }, publicKey: undefined, context: undefined }],
    'parts that are undefined': [{ id: undefined, channel: undefined, publicKey: null }, { id: /^[0-9a-f-]{36}$/, channel: { name: 'home' } }],
    'an id': [{ id: 'x'.repeat(255) }, { id: 'x'.repeat(255) }],
    'an empty channel': [{ channel: '' }, { channel: { name: '' } }],
    'a channel': [{ channel: 'another' }, { channel: { name: 'another' } }],
    'a key in base64': [{ publicKey: KEY.toString('base64') }, { publicKey: KEY.toString('base64'), id: KEY.toString('base64') }],
    'a key in bytes': [{ publicKey: new Uint8Array(KEY) }, { publicKey: KEY.toString('base64') }],
    'a key and an id': [{ publicKey: KEY, id: 'me' }, { publicKey: KEY.toString('base64'), id: 'me' }],
    context: [{ context: { user: 5 } }, { context: { user: 5 } }]
  }
  for (const [what, [identified, peer]] of Object.entries(good)) {
    for (const speed of ['sync', 'async']) {
      await t.test(`${what} is taken, ${speed}`, async (t) => {
        const app = await startApp(t, (app) => app.relay('/relay/:network', {
          identify: speed === 'sync' ? () => identified : async () => identified
        }))
        await openBare(t, app, '/relay/home')
        t.match(app.relayHub.peers(), [peer])
      })
    }
  }
})

t.test('what identify throws is the answer', async (t) => {
  const thrown: Array<[string, Error & { code?: string }, number]> = [
    ['an error with a status', Object.assign(new Error('not yours'), { statusCode: 403 }), 403],
    ['an error with a code of the app', Object.assign(new Error('not yours'), { statusCode: 402, code: 'UNPAID' }), 402],
    ['any error', new Error('oh'), 500]
  ]
  for (const [what, error, statusCode] of thrown) {
    for (const speed of ['sync', 'async']) {
      await t.test(`${what}, ${speed}`, async (t) => {
        const app = await startApp(t, (app) => app.relay('/relay', {
          identify: speed === 'sync' ? () => { throw error } : async () => { throw error }
        }))
        const { body } = await testRefusal(t, app, upgradeText('/relay'), { statusCode, ...(error.code === undefined ? {} : { toldCode: error.code }) })
        t.equal(JSON.parse(body).message, error.message)
      })
    }
  }
})

t.test('identify has the instance as this, and the request as the hooks have left it', async (t) => {
  const app = await startApp(t, (app) => {
    app.decorate('answer', 42)
    app.decorateRequest('user', '')
    app.relay('/relay/:network', {
      onRequest: async (request) => { Object.assign(request, { user: 'ada' }) },
      identify: function (request) {
        const { user } = request as unknown as { user: string }
        return { id: user, context: (this as unknown as { answer: number }).answer }
      }
    })
  })
  await openBare(t, app, '/relay/home')
  t.match(app.relayHub.peers(), [{ id: 'ada', context: 42 }])
})

t.test('readIdentity keeps a copy of the key', (t) => {
  const bytes = new Uint8Array(KEY)
  const { publicKey } = readIdentity({ publicKey: bytes })
  bytes.fill(0)
  t.same(publicKey, KEY)
  t.end()
})

t.test('a public key that is null is none', (t) => {
  t.same(readIdentity({ id: 'a', publicKey: null }), readIdentity({ id: 'a' }))
  t.end()
})
