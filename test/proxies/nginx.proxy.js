import { existsSync } from 'node:fs'
import t from 'tap'
import { adapt, fixture, readRecipe } from './proxy.js'
import { testProxy } from './suite.js'

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

testProxy(t, {
  name: 'nginx, http',
  setUp: ({ port, appPort, isTls, timeout, folder }) => setUp('http', adapt(readRecipe('nginx'), [
    ['listen 443 ssl;', `listen 127.0.0.1:${port}${isTls ? ' ssl' : ''};`],
    ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
    ['_timeout 1h;', `_timeout ${timeout}s;`],
    ...isTls ? tls : withoutTls
  ]), folder),
  earlyData: true,
  halfClose: { client: false, other: false },
  cutsIdle: true
})

testProxy(t, {
  name: 'nginx, stream',
  setUp: ({ port, appPort, timeout, folder }) => setUp('stream', adapt(readRecipe('nginx-stream'), [
    ['listen 443;', `listen 127.0.0.1:${port};`],
    ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
    ['proxy_timeout 1h;', `proxy_timeout ${timeout}s;`]
  ]), folder),
  ...(existsSync(STREAM_MODULE) ? {} : { skip: 'nginx has no stream module: apt-get install libnginx-mod-stream' }),
  speaksProxyProtocol: true,
  earlyData: true,
  halfClose: { client: true, other: true },
  cutsIdle: true
})
