import { existsSync } from 'node:fs'
import t from 'tap'
import { testHttp2, testNoHttp2 } from './http2.js'
import { adapt, fixture, readRecipe } from './proxy.js'
import { testProxy } from './suite.js'
import { testWebSockets } from './web-sockets.js'

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

const tls = [
  ['ssl_certificate /etc/ssl/relay.pem;', `ssl_certificate ${fixture('server.pem')};`],
  ['ssl_certificate_key /etc/ssl/relay.key;', `ssl_certificate_key ${fixture('server-key.pem')};`]
]
const withoutTls = [['ssl_certificate /etc/ssl/relay.pem;', ''], ['ssl_certificate_key /etc/ssl/relay.key;', '']]

function setUp (context, adapted, folder) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join('\n')
  return {
    command: ['nginx', '-p', folder, '-e', 'stderr', '-c', 'config', '-g', 'daemon off;'],
    config: `
${context === 'stream' ? `load_module ${STREAM_MODULE};` : ''}
pid ${folder}/pid;
error_log stderr notice;
events {}
${context} {
${context === 'http' ? `access_log off;\n${temporary}` : ''}
${adapted}
}
`
  }
}

const setUpHttp = (listen) => ({ port, appPort, isTls, timeout, folder }) => setUp('http', adapt(readRecipe('nginx'), [
  ['listen 443 ssl;', `listen 127.0.0.1:${port}${isTls ? listen : ''};`],
  ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
  ['_timeout 1h;', `_timeout ${timeout}s;`],
  ...isTls ? tls : withoutTls
]), folder)

const http = { name: 'nginx, http', setUp: setUpHttp(' ssl'), earlyData: true, halfClose: { client: false, other: false }, cutsIdle: true }
testProxy(t, http)
testWebSockets(t, http)
testNoHttp2(t, { name: 'nginx, http', setUp: setUpHttp(' ssl http2') })

const setUpStream = (recipe) => ({ port, appPort, timeout, folder }) => setUp('stream', adapt(recipe, [
  ['listen 443;', `listen 127.0.0.1:${port};`],
  ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
  ['proxy_timeout 1h;', `proxy_timeout ${timeout}s;`]
]), folder)

const stream = {
  ...(existsSync(STREAM_MODULE) ? {} : { skip: 'nginx has no stream module: apt-get install libnginx-mod-stream' }),
  forwardsTcp: true,
  earlyData: true,
  halfClose: { client: true, other: true },
  cutsIdle: true
}
const streamHttp1 = { ...stream, name: 'nginx, stream', setUp: setUpStream(readRecipe('nginx-stream')), speaksProxyProtocol: true }
testProxy(t, streamHttp1)
testWebSockets(t, streamHttp1)
// proxyProtocol() makes servers of HTTP/1.1.
const streamHttp2 = {
  ...stream,
  name: 'nginx, stream, HTTP/2',
  setUp: setUpStream(adapt(readRecipe('nginx-stream'), [['proxy_protocol on;', '']])),
  clientHttp: 2,
  appHttp: 2,
  refuses: { 'UoTLV/1': 501 },
  seenAddress: '127.0.0.1',
  stallsAlone: true
}
testProxy(t, streamHttp2)
testWebSockets(t, streamHttp2)
testHttp2(t, streamHttp2)
