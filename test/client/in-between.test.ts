import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createSecureServer } from 'node:http2'
import { createServer as createHttps } from 'node:https'
import { connect as connectTcp, createServer as createTcp, type AddressInfo, type Socket } from 'node:net'
import { join } from 'node:path'
import { createServer as createTls } from 'node:tls'
import t, { type Test } from 'tap'
import { connect, UdpSidecar, type SidecarOptions } from '../../lib/client/index.ts'
import { fakeRelay, refuse, say } from '../helpers/fake-relay.ts'
import { freePort } from '../helpers/ports.ts'
import { startApp } from '../helpers/relay-app.ts'

// What stands between a client and a relay in the field, and what the client says about it.

const fixture = (name: string): string => new URL(`../fixtures/${name}`, import.meta.url).pathname
const NGINX = ['/usr/sbin/nginx', '/usr/bin/nginx'].find((path) => existsSync(path))

async function listening (t: Test, server: Server | ReturnType<typeof createTcp>): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    if ('closeAllConnections' in server) server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

async function nginx (t: Test, location: string): Promise<string> {
  const folder = t.testdir({})
  const port = await freePort()
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`).join('\n')
  writeFileSync(join(folder, 'config'), `pid ${folder}/pid; error_log stderr notice; events {}
http { access_log off; ${temporary} server { listen 127.0.0.1:${port}; location / { ${location} } } }`)
  const child = spawn(NGINX!, ['-p', folder, '-e', 'stderr', '-c', 'config', '-g', 'daemon off; master_process off;'], { stdio: 'ignore' })
  t.teardown(() => { child.kill('SIGKILL') })
  for (;;) {
    const socket = connectTcp(port, '127.0.0.1')
    const isOpen = await new Promise((resolve) => socket.once('connect', () => resolve(true)).once('error', () => resolve(false)))
    socket.destroy()
    if (isOpen) return `http://127.0.0.1:${port}/relay`
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

async function started (t: Test, options: SidecarOptions): Promise<UdpSidecar> {
  const sidecar = new UdpSidecar({ listen: '127.0.0.1:0', ...options })
  t.teardown(() => sidecar.close())
  sidecar.on('stop', ({ text }) => t.fail(`gave up: ${text}`))
  await sidecar.start()
  return sidecar
}

const relayApp = (t: Test) => startApp(t, (app) => app.relay('/relay'))
const portOf = (app: Awaited<ReturnType<typeof relayApp>>): number => (app.server.address() as AddressInfo).port

t.test('nginx without its two lines for Upgrade is named, with the recipe', { skip: NGINX === undefined && 'no nginx' }, async (t) => {
  const app = await relayApp(t)
  const url = await nginx(t, `proxy_pass http://127.0.0.1:${portOf(app)}; proxy_http_version 1.1;`)
  const message = /^A proxy before the relay took the Upgrade header away, and the relay answered 426: FST_RELAY_UPGRADE_REQUIRED, .*takes? Upgrade away, Server: nginx.*; mend the proxy with its recipe in docs\/behind-proxies\.md/
  await t.rejects(connect(url), { code: 'FST_RELAY_REFUSED', answeredBy: 'between', message })
  await t.rejects(connect(url, { protocol: 'websocket' }), { answeredBy: 'between', message })
  const sidecar = await started(t, { url, protocol: 'auto' })
  const [{ text }] = await once(sidecar, 'retry')
  t.match(text, message)
  t.match(readFileSync(new URL('../../docs/behind-proxies.md', import.meta.url), 'utf8'), /^<!-- recipe: nginx -->$/m)
})

t.test('a proxy that passes only WebSockets: auto falls back, says so once, and remembers', { skip: NGINX === undefined && 'no nginx' }, async (t) => {
  const app = await relayApp(t)
  const url = await nginx(t, `proxy_pass http://127.0.0.1:${portOf(app)}; proxy_http_version 1.1; set $up ""; if ($http_upgrade = websocket) { set $up websocket; }
    if ($http_sec_websocket_key = "") { set $up ""; } proxy_set_header Upgrade $up; proxy_set_header Connection upgrade;`)
  const sockets = new Set<Socket>()
  app.server.on('connection', (socket) => sockets.add(socket))
  const refused: unknown[] = []
  app.server.on('request', (request) => refused.push(request.url))
  const sidecar = await started(t, { url, protocol: 'auto' })
  let fallbacks = 0
  sidecar.on('fallback', () => { fallbacks++ })
  t.match(await once(sidecar, 'connect'), [{ framing: 'websocket' }])
  t.equal(fallbacks, 1)
  const again = once(sidecar, 'connect')
  for (const socket of sockets) socket.destroy()
  t.match(await again, [{ framing: 'websocket' }])
  t.equal(fallbacks, 1, 'the next attempt was a WebSocket at once')
  t.equal(refused.length, 1)
})

t.test('auto falls back for what proxies answer, and for a connection that is cut, never for a relay’s own refusal', async (t) => {
  for (const status of ['400 A', '403 B', '404 C', '405 D', '426 E', '501 F', '502 G']) {
    const relay = await fakeRelay(t, { answers: [refuse(status)] })
    const sidecar = await started(t, { url: relay.url, protocol: 'auto' })
    await relay.requests.next()
    const { headers } = await relay.requests.next()
    t.match(headers, { upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-protocol': 'spanza.v1' }, status)
    await sidecar.close()
  }
  const cut = await fakeRelay(t, { answers: [(_request, socket) => { socket.destroy() }] })
  const sidecar = await started(t, { url: cut.url, protocol: 'auto' })
  await cut.requests.next()
  t.equal((await cut.requests.next()).headers.upgrade, 'websocket')
  await sidecar.close()

  for (const status of ['401 A', '403 B']) {
    const relay = await fakeRelay(t, { answers: [refuse(status, { message: 'no' }), say('')] })
    const final = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', protocol: 'auto' })
    const stop = once(final, 'stop')
    await final.start()
    t.match(await stop, [{ error: { statusCode: parseInt(status), answeredBy: 'relay' } }])
    t.equal(relay.requests.all.length, 1)
  }
})

const portal: Array<[string, (url: string) => [number, Record<string, string>], RegExp]> = [
  ['a captive portal’s page', () => [200, { Server: 'portal' }], /^Something between you and the relay answered 200: OK, Server: portal \(a login page\?\)$/],
  ['a captive portal’s redirection, which is not followed', (url) => [302, { Location: `${url}/login` }], /302: Found, to http:.*\/login \(a login page\?\)$/],
  ['a block page', () => [403, { Server: 'filter' }], /403: Forbidden, Server: filter \(a filter that blocks this\?\)$/],
  ['an ingress that knows no such service yet', () => [404, {}], /404: Not Found \(a server that does not know the relay, or not yet/],
  ['an ingress without a pod', () => [503, {}], /503: Service Unavailable \(a proxy that does not reach the relay\?\)$/]
]
for (const [name, answer, text] of portal) {
  t.test(`${name} is named, and when it has gone the sidecar connects`, async (t) => {
    const app = await relayApp(t)
    let isFree = false
    const paths: string[] = []
    const front = createServer((request, response) => {
      paths.push(request.url!)
      const [status, headers] = answer(`http://127.0.0.1:${port}`)
      response.writeHead(status, headers).end('<html><title>Welcome</title>')
    })
    front.on('upgrade', (request, socket, head) => {
      if (!isFree) {
        const [status, headers] = answer(`http://127.0.0.1:${port}`)
        paths.push(request.url!)
        const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join('')
        return socket.end(`HTTP/1.1 ${status} \r\n${lines}Content-Length: 6\r\nConnection: close\r\n\r\n<html>`)
      }
      const behind = connectTcp(portOf(app), '127.0.0.1')
      const lines = Array.from({ length: request.rawHeaders.length / 2 }, (_, i) => `${request.rawHeaders[2 * i]}: ${request.rawHeaders[2 * i + 1]}\r\n`)
      behind.write(`GET /relay HTTP/1.1\r\n${lines.join('')}\r\n`)
      behind.write(head)
      behind.on('error', () => {})
      socket.on('error', () => {}).on('close', () => behind.destroy())
      socket.pipe(behind).pipe(socket)
    })
    const port = await listening(t, front)
    const sidecar = await started(t, { url: `http://127.0.0.1:${port}/relay` })
    const [retry] = await once(sidecar, 'retry')
    t.match(retry.text, text)
    isFree = true
    await once(sidecar, 'connect')
    t.ok(paths.every((path) => path === '/relay'), 'nothing but the relay was asked for')
  })
}

/** A certificate of a CA that nobody knows, or one that is signed by itself. */
function certificate (t: Test, ...args: string[]): { key: Buffer, cert: Buffer } {
  const folder = t.testdir({})
  const run = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe', cwd: folder })
  run('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=Corporate Inspection')
  run('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', 'key', '-out', 'csr', '-subj', '/CN=elsewhere.example/O=Firewall', '-addext', 'subjectAltName=DNS:elsewhere.example')
  run('x509', '-req', '-in', 'csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-out', 'cert', '-copy_extensions', 'copy', ...args)
  return { key: readFileSync(join(folder, 'key')), cert: readFileSync(join(folder, 'cert')) }
}

t.test('certificates that are not accepted are named, with what helps', async (t) => {
  const { key, cert } = certificate(t, '-days', '2')
  const port = await listening(t, createHttps({ key, cert }))
  const shows = 'localhost shows the certificate of CN=elsewhere\\.example, O=Firewall, issued by CN=Corporate Inspection, valid from \\d{4}-.* UTC until \\d{4}-.* UTC'
  const unknown = new RegExp(`unable to verify the first certificate(?:; [^;]*)?; ${shows}; its issuer is not known here: .* --ca \\(tls\\.ca\\); else something may be intercepting TLS`)
  await t.rejects(connect(`https://localhost:${port}/`), { code: 'FST_RELAY_CONNECT', message: unknown, cause: { code: 'UNABLE_TO_VERIFY_LEAF_SIGNATURE' } })
  const h2 = await listening(t, createSecureServer({ key, cert }) as unknown as Server)
  await t.rejects(connect(`https://localhost:${h2}/`, { httpVersion: 2 }), { message: unknown })

  const otherCa = { tls: { ca: readFileSync(fixture('ca.pem')) } }
  await t.rejects(connect(`https://localhost:${port}/`, otherCa), {
    message: new RegExp(`${shows}; its issuer is not among the certificates given with --ca \\(tls\\.ca\\): give that of the CA which issued it, unless something is intercepting TLS, or`)
  })

  const right = await listening(t, createHttps({ key: readFileSync(fixture('server-key.pem')), cert: readFileSync(fixture('server.pem')) }))
  await t.rejects(connect(`https://127.0.0.1:${right}/`, { servername: 'other.example', tls: { ca: readFileSync(fixture('ca.pem')) } }), {
    message: /altnames.*; other\.example shows the certificate of .*, for the names .*127\.0\.0\.1.*; is the host right \(--servername\)/
  })

  const expired = certificate(t, '-days', '-1')
  const folder = t.testdirName
  const late = await listening(t, createHttps(expired))
  await t.rejects(connect(`https://localhost:${late}/`, { tls: { ca: readFileSync(join(folder, 'ca.pem')) } }), {
    message: /certificate has expired; localhost shows .*; this machine's clock says \d{4}-/
  })
})

t.test('alerts about a certificate of this side are named', async (t) => {
  const server = { key: readFileSync(fixture('server-key.pem')), cert: readFileSync(fixture('server.pem')) }
  const ca = readFileSync(fixture('ca.pem'))
  const silentServer = createHttps(server)
  silentServer.on('secureConnection', (socket) => socket.on('data', () => socket.destroy()))
  const silent = await listening(t, silentServer)
  await t.rejects(connect(`https://127.0.0.1:${silent}/`, { tls: { ca } }), { message: /; the server closed the connection without an answer; does it want a certificate of this side \(--cert, --key\)\?/ })
  const own = certificate(t, '-days', '2')
  await t.rejects(connect(`https://127.0.0.1:${silent}/`, { tls: { ca, ...own } }), {
    message: /does it not accept this side's certificate \(CN=elsewhere\.example, O=Firewall, valid until \d{4}-.*\)\?/
  })
  const child = spawn('openssl', ['s_server', '-accept', '0', '-key', fixture('server-key.pem'), '-cert', fixture('server.pem'), '-CAfile', fixture('ca.pem'), '-Verify', '1', '-verify_return_error'])
  t.teardown(() => { child.kill('SIGKILL') })
  let output = ''
  child.stderr.resume()
  const port = await new Promise<number>((resolve) => child.stdout.on('data', (chunk) => {
    output += chunk
    const found = /ACCEPT .*:(\d+)/.exec(output)
    if (found !== null) resolve(Number(found[1]))
  }))
  await t.rejects(connect(`https://127.0.0.1:${port}/`, { tls: { ca } }), { message: /the server wants a certificate of this side: give --cert and --key/ })
  await t.rejects(connect(`https://127.0.0.1:${port}/`, { tls: { ca, ...own } }), { message: /the server does not (?:know the CA of|accept) this side's certificate \(CN=elsewhere\.example/ })
})

t.test('what speaks something else is named', async (t) => {
  const answering = async (bytes: Buffer | string): Promise<string> =>
    `http://127.0.0.1:${await listening(t, createTcp((socket) => { socket.on('error', () => {}).on('data', () => socket.end(bytes)) }))}/`
  await t.rejects(connect(await answering(Buffer.from('000006040000000000000300000064', 'hex'))), { message: /the server speaks HTTP\/2 only: use --http2/ })
  await t.rejects(connect(await answering(Buffer.from('15030100020228', 'hex'))), { message: /the port speaks TLS: use https:/ })
  await t.rejects(connect(await answering('SSH-2.0-OpenSSH\u001b_9.2\r\n')), { message: /what answers does not speak HTTP: "SSH-2\.0-OpenSSH_9\.2"/ })
  const plain = await answering('HTTP/1.1 400 Bad Request\r\n\r\n')
  await t.rejects(connect(plain.replace('http:', 'https:')), { message: /the port does not speak TLS: use http:/ })
  const server = createTls({ key: readFileSync(fixture('server-key.pem')), cert: readFileSync(fixture('server.pem')), ALPNProtocols: ['h2'] })
  const h2 = await listening(t, server)
  await t.rejects(connect(`https://127.0.0.1:${h2}/`, { tls: { ca: readFileSync(fixture('ca.pem')) } }), { message: /perhaps HTTP\/2: try --http2/ })
})

t.test('a sidecar’s certificates are asked for anew, and a failure is an attempt that failed', async (t) => {
  const ca = readFileSync(fixture('ca.pem'))
  const own = { cert: readFileSync(fixture('client.pem')), key: readFileSync(fixture('client-key.pem')) }
  const server = { key: readFileSync(fixture('server-key.pem')), cert: readFileSync(fixture('server.pem')) }
  const relay = await fakeRelay(t, { tls: { ...server, ca, requestCert: true, rejectUnauthorized: true } })
  const given = [() => { throw new Error('--cert cannot be read: ENOENT') }, () => ({ ca }), async () => ({ ca, ...own })]
  const sidecar = new UdpSidecar({ url: relay.url, listen: '127.0.0.1:0', tls: () => given.shift()!() })
  t.teardown(() => sidecar.close())
  const first = once(sidecar, 'retry')
  const connected = once(sidecar, 'connect')
  await sidecar.start()
  t.match(await first, [{ text: '--cert cannot be read: ENOENT' }])
  t.match(await once(sidecar, 'retry'), [{ text: /TLS: .*; the server wants a certificate of this side: give --cert and --key/ }])
  await connected
  t.throws(() => new UdpSidecar({ url: 'http://127.0.0.1/', tls: () => ({}) }), { message: /option tls must be absent with an http: URL/ })
})
