import t from 'tap'
import { proxyFromEnvironment } from '../../../lib/client/options/proxy-environment.ts'

const destination = (url: string) => {
  const { protocol, hostname, port } = new URL(url)
  const secure = protocol === 'https:'
  return { secure, hostname: hostname.replace(/^\[(.+)\]$/, '$1'), port: Number(port || (secure ? 443 : 80)) }
}

t.test('which variable names the proxy', (t) => {
  const all = { https_proxy: 'a', HTTPS_PROXY: 'b', http_proxy: 'c', HTTP_PROXY: 'd', all_proxy: 'e', ALL_PROXY: 'f' }
  const { https_proxy: _1, http_proxy: _2, ...upper } = all
  const { HTTPS_PROXY: _3, HTTP_PROXY: _4, ...general } = upper
  const cases: Array<[string, NodeJS.ProcessEnv, string | undefined]> = [
    ['https://a', all, 'https_proxy'], ['http://a', all, 'http_proxy'],
    ['https://a', upper, 'HTTPS_PROXY'], ['http://a', upper, 'HTTP_PROXY'],
    ['https://a', general, 'all_proxy'], ['http://a', general, 'all_proxy'],
    ['https://a', { ALL_PROXY: 'f' }, 'ALL_PROXY'],
    ['https://a', { HTTP_PROXY: 'd' }, undefined], ['http://a', { HTTPS_PROXY: 'b' }, undefined],
    ['https://a', { https_proxy: '', HTTPS_PROXY: ' ', ALL_PROXY: 'f' }, 'ALL_PROXY'],
    ['https://a', {}, undefined]
  ]
  for (const [url, env, name] of cases) {
    t.same(proxyFromEnvironment(destination(url), env), name === undefined ? undefined : { name, value: env[name] }, `${url} ${JSON.stringify(env)}`)
  }
  t.end()
})

t.test('what NO_PROXY excepts', (t) => {
  const cases: Array<[list: string, excepted: string[], others: string[]]> = [
    ['*', ['https://relay.example.com', 'http://192.0.2.1', 'https://[2001:db8::1]'], []],
    ['example.com', ['https://example.com', 'https://relay.example.com', 'https://RELAY.example.com.'], ['https://notexample.com', 'https://example.com.org']],
    ['.example.com', ['https://example.com', 'https://a.b.example.com'], ['https://notexample.com']],
    ['*.Example.com', ['https://relay.example.com'], ['https://notexample.com']],
    ['a.org, example.com', ['https://example.com', 'https://a.org'], ['https://b.org']],
    ['a.org  example.com', ['https://example.com'], []],
    ['example.com:8443', ['https://example.com:8443'], ['https://example.com', 'http://example.com:80']],
    ['example.com:443', ['https://example.com'], ['https://example.com:8443']],
    ['192.0.2.7', ['https://192.0.2.7', 'http://192.0.2.7:8080'], ['https://192.0.2.8', 'https://x192.0.2.7.example']],
    ['192.0.2.7:8080', ['http://192.0.2.7:8080'], ['http://192.0.2.7']],
    ['192.0.2.0/24', ['https://192.0.2.255', 'https://[::ffff:192.0.2.1]'], ['https://192.0.3.0', 'https://[2001:db8::1]']],
    ['2001:db8::/32', ['https://[2001:db8:1::2]'], ['https://[2001:db9::1]', 'https://192.0.2.1']],
    ['2001:db8::1', ['https://[2001:db8::1]'], ['https://[2001:db8::2]']],
    ['[2001:db8::1]', ['https://[2001:db8:0::1]:8443'], []],
    ['[2001:db8::1]:8443', ['https://[2001:db8::1]:8443'], ['https://[2001:db8::1]']],
    ['0.2.7, 2.7, /24, 300.1.1.1/8, :443, [', [], ['https://192.0.2.7', 'https://example.com']],
    ['', [], ['https://example.com']]
  ]
  for (const [list, excepted, others] of cases) {
    for (const name of ['no_proxy', 'NO_PROXY']) {
      const env = { ALL_PROXY: 'http://p', [name]: list }
      for (const url of excepted) t.equal(proxyFromEnvironment(destination(url), env), undefined, `"${list}" has ${url}`)
      for (const url of others) t.ok(proxyFromEnvironment(destination(url), env), `"${list}" has not ${url}`)
    }
  }
  t.ok(proxyFromEnvironment(destination('https://a'), { ALL_PROXY: 'p', no_proxy: 'b', NO_PROXY: '*' }), 'the lower-case name comes first')
  t.end()
})
