import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { adapt, fixture, readRecipe } from './proxy.js'
import { testProxy } from './suite.js'

const command = ['haproxy', '-db', '-f', 'config']

testProxy(t, {
  name: 'HAProxy, mode http',
  refuses: { websocket: 400 },
  setUp ({ port, appPort, isTls, timeout, folder }) {
    const both = join(folder, 'relay.pem')
    writeFileSync(both, readFileSync(fixture('server.pem'), 'utf8') + readFileSync(fixture('server-key.pem'), 'utf8'))
    return {
      command,
      config: adapt(readRecipe('haproxy'), [
        ['bind :443 ssl crt /etc/haproxy/relay.pem', `bind 127.0.0.1:${port}${isTls ? ` ssl crt ${both}` : ''}`],
        ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
        ['X-Forwarded-Proto https', `X-Forwarded-Proto ${isTls ? 'https' : 'http'}`],
        ['timeout tunnel 1h', `timeout tunnel ${timeout}s`]
      ])
    }
  },
  earlyData: true,
  halfClose: { client: true, other: false },
  cutsIdle: true
})

testProxy(t, {
  name: 'HAProxy, mode tcp',
  setUp: ({ port, appPort, timeout }) => ({
    command,
    config: adapt(readRecipe('haproxy-tcp'), [
      ['bind :443', `bind 127.0.0.1:${port}`],
      ['127.0.0.1:3000', `127.0.0.1:${appPort}`],
      ['timeout tunnel 1h', `timeout tunnel ${timeout}s`]
    ])
  }),
  speaksProxyProtocol: true,
  earlyData: true,
  halfClose: { client: true, other: true },
  cutsIdle: true
})
