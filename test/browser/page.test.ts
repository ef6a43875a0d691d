import { readFileSync } from 'node:fs'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import { UdpSidecar } from '../../lib/client/index.ts'
import { skip } from '../helpers/chromium.ts'
import { freePort } from '../helpers/ports.ts'
import { refusalsOf } from '../helpers/relay-app.ts'
import { udpPeer, type UdpPeer } from '../helpers/udp-peer.ts'
import { http2Options, startExample, tokens } from './example-app.ts'
import { ExamplePage } from './example-page.ts'

// The page of the example app, in a real browser.

const ca = readFileSync(new URL('../fixtures/ca.pem', import.meta.url))

/** A sidecar in the network `home`, and what stands for WireGuard behind it. */
async function startSidecar (t: Test, app: FastifyInstance, token: string): Promise<UdpPeer> {
  const url = `${app.listeningOrigin}/relay/home`
  const sidecar = new UdpSidecar({ url, token, listen: '127.0.0.1:0', ...(url.startsWith('https:') ? { tls: { ca } } : {}) })
  t.teardown(() => sidecar.close())
  const connected = once(sidecar, 'connect')
  const peer = (await udpPeer(t)).to(await sidecar.start())
  await connected
  return peer
}

for (const { httpVersion, server } of [{ httpVersion: '1.1', server: {} }, { httpVersion: '2.0', server: http2Options() }]) {
  t.test(`over HTTP/${httpVersion}, a page and a sidecar trade datagrams`, { skip }, async (t) => {
    const app = await startExample(t, { server })
    const page = await ExamplePage.open(t, app, tokens.alice)
    t.equal(await page.join(), 'Connected to the network “home” as alice.')
    t.match(app.relayHub.peers(), [{ id: 'alice', channel: { name: 'home', kind: 'packet' }, protocol: 'websocket', framing: 'websocket', httpVersion }])
    const peer = await startSidecar(t, app, tokens.bob)

    await peer.send('<b>grüß dich</b>')
    t.same(await page.datagram(1), {
      direction: 'received', text: '<b>grüß dich</b>', hex: '3c 62 3e 67 72 c3 bc c3 9f 20 64 69 63 68 3c 2f 62 3e'
    }, 'what comes is shown, and is no HTML')
    await page.send('dich auch')
    t.same(await page.datagram(2), { direction: 'sent', text: 'dich auch', hex: '64 69 63 68 20 61 75 63 68' }, 'what is sent is shown')
    t.equal(String(await peer.received.next()), 'dich auch')
    await peer.send(Buffer.from([0xff, 0x00, 0x80]))
    t.same(await page.datagram(3), { direction: 'received', text: '', hex: 'ff 00 80' }, 'what is no text is shown as bytes only')
    await peer.send('a\u0000b\u202ec')
    t.match(await page.datagram(4), { text: 'a·b·c' }, 'what does not show is a dot')
    t.same(page.errors, [])
  })

  t.test(`over HTTP/${httpVersion}, the page tells in words why the relay closed`, { skip }, async (t) => {
    const app = await startExample(t, { server })
    const page = await ExamplePage.open(t, app, tokens.alice)
    await page.join()
    app.relayHub.disconnect({ channel: 'home', id: 'alice' }, 'back at noon')
    t.equal(await page.status('failed'), 'The operator has disconnected this peer. (back at noon, code 4006)')

    t.equal(await page.join(), 'Connected to the network “home” as alice.', 'and joins again')
    const other = await ExamplePage.open(t, app, tokens.alice)
    await other.join()
    t.match(await page.status('failed'), /^Another peer has joined with the same identity.* code 4003\)$/)

    await other.press('Leave')
    t.equal(await other.status('away'), 'You have left the network.')
    t.same(app.relayHub.peers(), [])
    t.match(app.relayHub.stats().detached, { ended: 1 })

    await other.join()
    const closed = app.close()
    t.match(await other.status('failed'), /^The relay is shutting down\. \(.*code 1001\)$/)
    await closed
    t.same([...page.errors, ...other.errors], [])
  })
}

t.test('the page takes its token out of the address bar', { skip }, async (t) => {
  const app = await startExample(t)
  const page = await ExamplePage.open(t, app, tokens.alice)
  t.equal(await page.page.getByLabel('Token').inputValue(), tokens.alice)
  t.equal(page.page.url(), `${app.listeningOrigin}/`)
})

t.test('the page tells what is too large for a datagram, and does not send it', { skip }, async (t) => {
  const app = await startExample(t)
  const page = await ExamplePage.open(t, app, tokens.alice)
  await page.join()
  await page.send('ü'.repeat(1025))
  t.equal(
    await page.page.getByLabel('Datagram', { exact: true }).evaluate((input) => (input as { validationMessage?: string }).validationMessage),
    'A datagram has at most 2048 bytes, this text has 2050.')
  await page.send('ü'.repeat(1024))
  t.match(await page.datagram(1), { direction: 'sent', text: 'ü'.repeat(1024) })
})

t.test('the user is told in words', { skip }, async (t) => {
  await t.test('that the token is wrong', async (t) => {
    const app = await startExample(t)
    const page = await ExamplePage.open(t, app, 'not-a-token')
    t.equal(await page.join(), 'The server does not know this token.')
    await page.fill('Token', tokens.bob)
    t.equal(await page.join(), 'Connected to the network “home” as bob.', 'and can mend it')
  })

  await t.test('that the network is another’s', async (t) => {
    const page = await ExamplePage.open(t, await startExample(t), tokens.alice)
    await page.fill('Network', 'office')
    t.equal(await page.join(), 'alice is not in the network “office”, only in: home.')
  })

  await t.test('that the page is from a wrong origin', async (t) => {
    const [app, elsewhere] = [await startExample(t), await startExample(t)]
    const refusals = refusalsOf(app)
    const page = await ExamplePage.open(t, elsewhere, tokens.alice)
    await page.fill('Server', app.listeningOrigin)
    const shown = await page.join()
    t.ok(shown.startsWith(
      `The relay at ${app.listeningOrigin} has refused. This page is from another origin, ${elsewhere.listeningOrigin}, and a relay lets only`), shown)
    t.match(refusals, [{ statusCode: 403, code: 'FST_RELAY_ORIGIN_NOT_ALLOWED' }])
    t.equal(refusals.length, 1)
  })

  await t.test('that a proxy in between changes what the server takes for its origin', async (t) => {
    const app = await startExample(t)
    const refusals = refusalsOf(app)
    const origin = await startProxy(t, app, 'inside.example')
    const page = await ExamplePage.openAt(t, origin, tokens.alice)
    const shown = await page.join()
    t.ok(shown.startsWith(
      `The relay has refused this page's origin. The page is from ${origin}, and the server takes http://inside.example for its own`), shown)
    t.match(refusals, [{ code: 'FST_RELAY_ORIGIN_NOT_ALLOWED' }])
  })

  await t.test('that the relay refused for some other reason', async (t) => {
    const app = await startExample(t, {
      setUp: (app) => app.addHook('onRequest', async (request, reply) => {
        if (request.headers.upgrade !== undefined) await reply.code(503).send()
      })
    })
    const page = await ExamplePage.open(t, app, tokens.alice)
    t.match(await page.join(), /^The relay has refused, though the token is good\./)
  })

  await t.test('that nobody answers', async (t) => {
    const app = await startExample(t)
    const origin = app.listeningOrigin
    const page = await ExamplePage.open(t, app, tokens.alice)
    const nowhere = `http://127.0.0.1:${await freePort()}`
    await page.fill('Server', nowhere)
    t.equal(await page.join(), `No answer from ${nowhere}: is the server running?`)
    await app.close()
    await page.fill('Server', origin)
    t.equal(await page.join(), `No answer from ${origin}: is the server running?`)
  })
})

/** A proxy that gives every request another Host, and does not tell the one it had; its origin. */
async function startProxy (t: Test, app: FastifyInstance, host: string): Promise<string> {
  const { port: appPort } = app.server.address() as AddressInfo
  const server = createServer((client) => {
    const upstream = connect(appPort, '127.0.0.1')
    for (const socket of [client, upstream]) socket.on('error', () => {})
    client.on('data', (chunk) => upstream.write(chunk.toString('latin1').replace(/^Host: .*$/m, `Host: ${host}`), 'latin1'))
    client.on('close', () => upstream.destroy())
    upstream.pipe(client)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
