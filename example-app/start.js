import { randomBytes } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { buildApp } from './app.js'

// What the environment says:
// PORT, HOST        where to listen; 3000 on 127.0.0.1 unless they say otherwise
// DEVICES           a JSON file with the devices (see buildApp); without it two are made up, with tokens that are good until the next start
// ADMIN_PASSWORD    of the user "admin"; without it one is made up, good until the next start
// TLS_KEY, TLS_CERT PEM files; with them the app speaks TLS, and HTTP/2 beside HTTP/1.1
// NODE_ENV          with "production" the log is JSON, for machines to read; else it is for people
const { PORT = '3000', HOST = '127.0.0.1', DEVICES, ADMIN_PASSWORD, TLS_KEY, TLS_CERT, NODE_ENV } = process.env

const devices = DEVICES === undefined
  ? ['alice', 'bob'].map((id) => ({ id, networks: ['home'], token: makeSecret() }))
  : JSON.parse(await readFile(DEVICES, 'utf8'))
const adminPassword = ADMIN_PASSWORD || makeSecret()

const tls = TLS_KEY === undefined
  ? {}
  : { http2: true, https: { key: await readFile(TLS_KEY), cert: await readFile(TLS_CERT), allowHTTP1: true } }
const logger = NODE_ENV === 'production' ? {} : { transport: { target: 'pino-pretty' } }

const app = await buildApp({ devices, adminPassword }, { ...tls, logger })
const url = await app.listen({ port: Number(PORT), host: HOST })

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => app.close().then(() => process.exit(0)))
}

if (DEVICES === undefined) {
  const [alice, bob] = devices
  const connect = ({ token }, port) =>
    `SPANZA_TOKEN=${token} npx spanza connect ${url}/relay/home --listen 127.0.0.1:${port}`
  console.log(`
The example app is at ${url}. What to try next:

  curl ${url}/api/health
  curl -H 'Authorization: Bearer ${alice.token}' ${url}/api/peers

  Two sidecars, each in a terminal of its own in this folder:

  ${connect(alice, 51821)}
  ${connect(bob, 51822)}

  They join the UDP ports 51821 and 51822 through the relay: set each as the Endpoint of the peer in a WireGuard
  configuration, as README.md shows. Or send datagrams by hand, one from each side first: a sidecar brings what comes
  from the relay to whoever has sent it something last.

  A browser can take the place of either, as a WebSocket peer:

  ${url}/#token=${alice.token}
  ${url}/#token=${bob.token}
`)
} else {
  console.log(`\nThe example app is at ${url}, a page that joins a network as a WebSocket peer at ${url}/\n`)
}

console.log(`\
  What the relay does is shown by a page, and told to Prometheus:

  ${url}/relay-admin/
  ${url}/metrics

  for the user admin, with the password ${adminPassword === ADMIN_PASSWORD ? 'that ADMIN_PASSWORD says' : adminPassword}
`)

function makeSecret () {
  return randomBytes(24).toString('base64url')
}
