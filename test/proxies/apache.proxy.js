import t from 'tap'
import { adapt, fixture, readRecipe } from './proxy.js'
import { testProxy, testTokens } from './suite.js'
import { testWebSockets } from './web-sockets.js'

const MODULES = '/usr/lib/apache2/modules'
const loaded = ['mpm_event', 'authz_core', 'headers', 'proxy', 'proxy_http', 'ssl']

const setUp = (upgrade, modules = loaded, further = '') => ({ port, appPort, isTls, timeout, folder }) => ({
  command: ['apache2', '-D', 'FOREGROUND', '-d', folder, '-f', 'config'],
  config: `
DefaultRuntimeDir ${folder}
PidFile ${folder}/pid
ErrorLog error.log
# A tunnel has the longer of this and ProxyTimeout.
Timeout ${timeout}
ServerName relay.example.com
${modules.map((name) => `LoadModule ${name}_module ${MODULES}/mod_${name}.so`).join('\n')}
User www-data
Group www-data
Listen 127.0.0.1:${port}
` + adapt(readRecipe('apache'), [
    ['<VirtualHost *:443>', `<VirtualHost 127.0.0.1:${port}>`],
    ['SSLEngine on', `SSLEngine ${isTls ? 'on' : 'off'}\n${further}`],
    ['X-Forwarded-Proto https', `X-Forwarded-Proto ${isTls ? 'https' : 'http'}`],
    ['/etc/ssl/relay.pem', fixture('server.pem')],
    ['/etc/ssl/relay.key', fixture('server-key.pem')],
    ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
    ['ProxyTimeout 3600', `ProxyTimeout ${timeout}`],
    ['upgrade=ANY', upgrade]
  ])
})

const apache = {
  name: 'Apache',
  setUp: setUp('upgrade=ANY'),
  earlyData: true,
  halfClose: { client: true, other: true },
  cutsIdle: true
}
testProxy(t, apache)
testWebSockets(t, apache)

const http2 = {
  name: 'Apache, HTTP/2 to it and HTTP/1.1 behind',
  setUp: setUp('upgrade=ANY', [...loaded, 'http2'], 'Protocols h2 h2c http/1.1\nH2WebSockets on'),
  clientHttp: 2
}
testTokens(t, { ...http2, refuses: { spanza: 501, 'UoTLV/1': 501 } }, true)
testWebSockets(t, http2)

// What does not pass arrives as a plain GET.
for (const [upgrade, refuses] of [
  ['', { spanza: 426, 'UoTLV/1': 426, websocket: 426 }],
  ['upgrade=spanza', { 'UoTLV/1': 426, websocket: 426 }],
  ['upgrade=websocket', { spanza: 426, 'UoTLV/1': 426 }]
]) testTokens(t, { name: `Apache with "${upgrade}"`, setUp: setUp(upgrade), refuses }, true)
