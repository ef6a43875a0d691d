import t from 'tap'
import { checkOrigin, originOf } from '../../lib/admission/origin.ts'

t.test('without a list, a page must be of the origin that the request is for', async (t) => {
  const rows: Array<[string | undefined, string, string, boolean]> = [
    [undefined, 'https', 'relay.example.com', true],
    ['https://relay.example.com', 'https', 'relay.example.com', true],
    ['https://relay.example.com', 'https', 'RELAY.example.com', true],
    ['https://relay.example.com', 'https', 'relay.example.com:443', true],
    ['http://relay.example.com', 'http', 'relay.example.com:80', true],
    ['http://[::1]:3000', 'http', '[::1]:3000', true],
    ['http://relay.example.com', 'https', 'relay.example.com', false],
    ['https://relay.example.com:8443', 'https', 'relay.example.com', false],
    ['https://example.com', 'https', 'relay.example.com', false],
    ['https://relay.example.com.evil.example', 'https', 'relay.example.com', false],
    ['https://relay.example.com@evil.example', 'https', 'relay.example.com', false],
    ['https://relay.example.com/path', 'https', 'relay.example.com', false],
    ['https://relay.example.com, https://evil.example', 'https', 'relay.example.com', false],
    ['null', 'https', 'relay.example.com', false],
    ['', 'https', 'relay.example.com', false],
    ['null', 'https', 'null', false],
    ['https://', 'https', '', false]
  ]
  for (const [origin, protocol, host, isAllowed] of rows) {
    const refused = checkOrigin({ headers: { origin }, protocol, host } as Parameters<typeof checkOrigin>[0], undefined)
    t.equal(refused?.code, isAllowed ? undefined : 'FST_RELAY_ORIGIN_NOT_ALLOWED', `${origin} at ${protocol}://${host}`)
  }
})

t.test('with a list, a page must be of one of these origins', async (t) => {
  const check = (origin: string): unknown => checkOrigin({ headers: { origin }, protocol: 'https', host: 'relay.example.com' } as Parameters<typeof checkOrigin>[0],
    ['https://app.example.com', 'http://localhost:5173'])?.message
  t.equal(check('https://app.example.com'), undefined)
  t.equal(check('http://localhost:5173'), undefined)
  t.equal(check('https://relay.example.com'),
    'Pages of "https://relay.example.com" may not open WebSockets here, only those of: https://app.example.com, http://localhost:5173')
})

t.test('an origin has one spelling', async (t) => {
  t.equal(originOf('HTTPS://App.Example.com:443'), 'https://app.example.com')
  for (const none of ['null', 'app.example.com', 'https://a/b', 'https://a?b', 'https://u@a', 'data:,x', '']) t.equal(originOf(none), undefined, none)
})
