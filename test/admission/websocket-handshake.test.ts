import t from 'tap'
import { acceptValueOf, checkOpeningHandshake } from '../../lib/admission/websocket-handshake.ts'

t.test('the opening handshake: version 13, and over HTTP/1.1 a key of 16 bytes', async (t) => {
  const key = 'dGhlIHNhbXBsZSBub25jZQ=='
  const rows: Array<[string, Record<string, string>, string | undefined]> = [
    ['as it should be', { 'sec-websocket-version': '13', 'sec-websocket-key': key }, undefined],
    ['no version', { 'sec-websocket-key': key }, 'FST_RELAY_WEBSOCKET_VERSION'],
    ['version 8', { 'sec-websocket-version': '8', 'sec-websocket-key': key }, 'FST_RELAY_WEBSOCKET_VERSION'],
    ['two versions', { 'sec-websocket-version': '13, 8', 'sec-websocket-key': key }, 'FST_RELAY_WEBSOCKET_VERSION'],
    ['an empty key', { 'sec-websocket-version': '13', 'sec-websocket-key': '' }, 'FST_RELAY_WEBSOCKET_KEY'],
    ['15 bytes', { 'sec-websocket-version': '13', 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAA' }, 'FST_RELAY_WEBSOCKET_KEY'],
    ['two keys', { 'sec-websocket-version': '13', 'sec-websocket-key': `${key}, ${key}` }, 'FST_RELAY_WEBSOCKET_KEY'],
    ['no base64', { 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ!=' }, 'FST_RELAY_WEBSOCKET_KEY']
  ]
  for (const [what, headers, code] of rows) t.equal(checkOpeningHandshake(headers, true)?.code, code, what)
  t.equal(checkOpeningHandshake({ 'sec-websocket-version': '13' }, false), undefined, 'no key over HTTP/2')
})

t.test('the value that belongs to a key is that of RFC 6455', async (t) => {
  t.equal(acceptValueOf('dGhlIHNhbXBsZSBub25jZQ=='), 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=')
})
