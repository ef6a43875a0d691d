import t from 'tap'
import { testNoHttp2 } from './http2.js'
import { adapt, fixture, readRecipe } from './proxy.js'
import { testProxy } from './suite.js'
import { testWebSockets } from './web-sockets.js'

const caddy = {
  name: 'Caddy',
  setUp ({ port, appPort, isTls, folder }) {
    const tls = 'tls /etc/ssl/relay.pem /etc/ssl/relay.key'
    return {
      command: ['caddy', 'run', '--adapter', 'caddyfile', '--config', 'config'],
      env: { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder },
      config: `
{
  admin off
  auto_https disable_redirects
  default_bind 127.0.0.1
  ${isTls ? 'https' : 'http'}_port ${port}
}
` + adapt(readRecipe('caddy'), [
        ['relay.example.com {', isTls ? 'relay.example.com {' : 'http://relay.example.com {'],
        [tls, isTls ? `tls ${fixture('server.pem')} ${fixture('server-key.pem')}` : ''],
        ['127.0.0.1:3000', `127.0.0.1:${appPort}`]
      ])
    }
  },
  earlyData: false,
  halfClose: { client: false, other: false },
  cutsIdle: false,
  strangersStatus: 200
}
testProxy(t, caddy)
testWebSockets(t, caddy)
testNoHttp2(t, caddy)
