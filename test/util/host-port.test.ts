import t from 'tap'
import { formatHostPort, isLoopback, parseHostPort } from '../../lib/util/host-port.ts'

t.test('reads host and port', async (t) => {
  t.same(parseHostPort('127.0.0.1:51820'), { host: '127.0.0.1', port: 51820 })
  t.same(parseHostPort('[::1]:0'), { host: '::1', port: 0 })
  t.same(parseHostPort('wg.example.com:65535'), { host: 'wg.example.com', port: 65535 })
})

t.test('reads nothing else', async (t) => {
  for (const value of ['', '127.0.0.1', ':1', '::1:51820', '[127.0.0.1]:1', '[::1]', 'a:65536', 'a:-1', 'a:1 ', 'a b:1', 'http://a:1', 51820, undefined]) {
    t.equal(parseHostPort(value), undefined, String(value))
  }
})

t.test('writes it the same way', async (t) => {
  for (const text of ['127.0.0.1:51820', '[::1]:1', 'localhost:9']) t.equal(formatHostPort(parseHostPort(text)!), text)
})

t.test('knows the addresses of the machine itself', async (t) => {
  for (const address of ['127.0.0.1', '127.255.0.9', '::1']) t.equal(isLoopback(address), true, address)
  for (const address of ['128.0.0.1', '10.0.0.1', '0.0.0.0', '::', '::2', 'fe80::1']) t.equal(isLoopback(address), false, address)
})
