import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { startFront } from './front.js'
import { testHttp2 } from './http2.js'
import { adapt, fixture, readRecipe } from './proxy.js'
import { testProxy } from './suite.js'
import { testWebSockets } from './web-sockets.js'

const command = ['haproxy', '-db', '-f', 'config']

/** @param backend in place of the one of the recipe `haproxy` */
const setUpHttp = (backend) => ({ port, appPort, isTls, timeout, folder }) => {
  const both = join(folder, 'relay.pem')
  writeFileSync(both, readFileSync(fixture('server.pem'), 'utf8') + readFileSync(fixture('server-key.pem'), 'utf8'))
  const recipe = readRecipe('haproxy')
  const whole = backend === undefined ? recipe : recipe.slice(0, recipe.indexOf('\nbackend app')) + '\n' + backend
  return {
    command,
    config: adapt(whole, [
      // Without TLS there is no ALPN: HAProxy knows HTTP/2 by its first bytes.
      ['bind :443 ssl crt /etc/haproxy/relay.pem alpn h2,http/1.1', `bind 127.0.0.1:${port}${isTls ? ` ssl crt ${both} alpn h2,http/1.1` : ''}`],
      ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
      ['X-Forwarded-Proto https', `X-Forwarded-Proto ${isTls ? 'https' : 'http'}`],
      ['timeout tunnel 1h', `timeout tunnel ${timeout}s`]
    ])
  }
}

const TLS_BEHIND = `ssl verify required ca-file ${fixture('ca.pem')} sni str(relay.example.com) verifyhost relay.example.com`
const h2 = readRecipe('haproxy-h2')
const h2OverTls = adapt(h2, [['proto h2', `${TLS_BEHIND} alpn h2`]])
// What is an upgrade goes by HTTP/1.1 then, and everything else by HTTP/2.
const eitherOverTls = adapt(h2, [['proto h2', `${TLS_BEHIND} alpn h2,http/1.1`]])

const http = [
  { name: 'HAProxy, mode http', setUp: setUpHttp(), refuses: { websocket: 400 } },
  { name: 'HAProxy, HTTP/2 to it and HTTP/1.1 behind', setUp: setUpHttp(), clientHttp: 2, earlyData: 500 },
  { name: 'HAProxy, HTTP/1.1 to it and HTTP/2 behind', setUp: setUpHttp(h2), appHttp: 2, refuses: { 'UoTLV/1': 501, websocket: 400 } },
  // Each side can wait for window updates that are behind data for which it has no room.
  { name: 'HAProxy, HTTP/2 on both sides', setUp: setUpHttp(h2), clientHttp: 2, appHttp: 2, refuses: { 'UoTLV/1': 501 }, bothWays: false },
  { name: 'HAProxy, HTTP/2 on both sides, TLS behind', setUp: setUpHttp(h2OverTls), clientHttp: 2, appHttp: 2, appTls: true, refuses: { 'UoTLV/1': 501 }, bothWays: false }
]
for (const proxy of http) {
  testProxy(t, { earlyData: true, halfClose: { client: true, other: false }, cutsIdle: true, ...proxy })
  testWebSockets(t, proxy)
  if (proxy.clientHttp === 2) testHttp2(t, proxy)
}

t.test('HAProxy asks a server that speaks both for tunnels over HTTP/1.1', async (t) => {
  const proxy = { name: 'HAProxy', setUp: setUpHttp(eitherOverTls), clientHttp: 2, appHttp: 2, appTls: true, allowHTTP1: true }
  const front = await startFront(t, proxy, true)
  await front.connect('/relay/wg')
  await front.webSocket('/relay/wg')
  t.match(front.app.relayHub.peers(), [{ protocol: 'spanza', httpVersion: '1.1' }, { protocol: 'websocket', httpVersion: '1.1' }])
})

const setUpTcp = (recipe) => ({ port, appPort, timeout }) => ({
  command,
  config: adapt(recipe, [
    ['bind :443', `bind 127.0.0.1:${port}`],
    ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
    ['timeout tunnel 1h', `timeout tunnel ${timeout}s`]
  ])
})
const tcp = { forwardsTcp: true, earlyData: true, halfClose: { client: true, other: true }, cutsIdle: true }
const tcpHttp1 = { ...tcp, name: 'HAProxy, mode tcp', setUp: setUpTcp(readRecipe('haproxy-tcp')), speaksProxyProtocol: true }
testProxy(t, tcpHttp1)
testWebSockets(t, tcpHttp1)
// proxyProtocol() makes servers of HTTP/1.1.
const tcpHttp2 = {
  ...tcp,
  name: 'HAProxy, mode tcp, HTTP/2',
  setUp: setUpTcp(adapt(readRecipe('haproxy-tcp'), [[' send-proxy-v2', '']])),
  clientHttp: 2,
  appHttp: 2,
  refuses: { 'UoTLV/1': 501 },
  seenAddress: '127.0.0.1',
  stallsAlone: true
}
testProxy(t, tcpHttp2)
testWebSockets(t, tcpHttp2)
testHttp2(t, tcpHttp2)
