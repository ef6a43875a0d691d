import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { mkdtempSync, rmSync } from 'node:fs'
import { once } from 'node:events'
import { Server as HttpServer } from 'node:http'
import { Server as HttpsServer } from 'node:https'
import { connect, type AddressInfo, type NetConnectOpts, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls, TLSSocket } from 'node:tls'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { proxyProtocol, type ProxyProtocolOptions } from '../../lib/entrance/proxy-protocol/proxy-protocol.ts'
import { encodeProxyHeader, type ProxyProtocolVersion } from '../../lib/util/proxy-header.ts'
import { Mailbox } from '../helpers/mailbox.ts'
import { SeededRandom } from '../helpers/random.ts'
import { RawClient, requestText, upgradeText, type DialOptions } from '../helpers/raw-client.ts'
import { serverCertificate, startApp, testJoined, type AppOptions } from '../helpers/relay-app.ts'

interface LogLine {
  msg: string
  address?: string
  reason?: string
}

const logs = new WeakMap<FastifyInstance, Mailbox<LogLine>>()

interface ProxiedOptions extends Partial<ProxyProtocolOptions>, Pick<AppOptions, 'relay' | 'listen'> {
  tls?: boolean
  server?: FastifyServerOptions
  setUp?: (app: FastifyInstance) => void
}

/** An app behind a proxy on 127.0.0.1: `/whoami` tells whom it takes its client for, `/echo` what it was sent. */
async function startProxied (t: Test, { tls = false, server, relay, listen, setUp, ...options }: ProxiedOptions = {}): Promise<FastifyInstance> {
  const lines = new Mailbox<LogLine>()
  const app = await startApp(t, (app) => {
    app.get('/whoami', async ({ ip, socket: { remoteAddress, remotePort, remoteFamily } }) => ({ ip, remoteAddress, remotePort, remoteFamily }))
    app.post<{ Body: Buffer }>('/echo', async ({ body }) => body)
    app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
    app.relay('/relay')
    setUp?.(app)
  }, {
    server: {
      bodyLimit: 2 ** 24,
      ...server,
      serverFactory: proxyProtocol({ from: ['127.0.0.1'], ...options }),
      ...(tls ? { https: serverCertificate() } : {}),
      logger: {
        stream: {
          write (line) {
            const parsed = JSON.parse(line) as LogLine
            if (parsed.msg === 'connection refused') lines.push(parsed)
          }
        }
      }
    },
    ...(relay === undefined ? {} : { relay }),
    ...(listen === undefined ? {} : { listen })
  })
  logs.set(app, lines)
  return app
}

/** The connections that an app has refused so far. */
function refusedBy (app: FastifyInstance): Mailbox<LogLine> {
  return logs.get(app)!
}

/** Connects as a proxy, sends a header, and lets a client come through it. */
async function dialThrough (t: Test, app: FastifyInstance, header: string | Buffer, { tls = false, ...dial }: DialOptions = {}): Promise<RawClient> {
  const address = app.server.address() as AddressInfo | string
  const target = typeof address === 'string' ? { path: address } : { host: '127.0.0.1', port: address.port }
  const socket = connect({ ...target, noDelay: true, ...dial } as NetConnectOpts)
  t.teardown(() => socket.destroy())
  socket.write(header)
  if (!tls) return new RawClient(socket)
  const secure = connectTls({ socket, rejectUnauthorized: false })
  const client = new RawClient(secure)
  await once(secure, 'secureConnect')
  return client
}

/**
 * Connects, and watches the server's end of it.
 * @returns the socket, and what waits until the server has read so many bytes
 */
async function dialAndWatch (t: Test, app: FastifyInstance): Promise<[Socket, (bytes: number) => Promise<void>]> {
  const accepted = new Promise<Socket>((resolve) => {
    const onSocket = (message: unknown): void => {
      unsubscribe('net.server.socket', onSocket)
      resolve((message as { socket: Socket }).socket)
    }
    subscribe('net.server.socket', onSocket)
  })
  const socket = connect({ host: '127.0.0.1', port: (app.server.address() as AddressInfo).port, noDelay: true })
  t.teardown(() => socket.destroy())
  const end = await accepted
  return [socket, async (bytes) => {
    while (end.bytesRead < bytes) await new Promise((resolve) => setImmediate(resolve))
  }]
}

/** The same header of version 2 with another length. */
function lengthOf (header: Buffer, length: number): Buffer {
  const changed = Buffer.from(header)
  changed.writeUInt16BE(length, 14)
  return changed
}

/** A header for a client of this address. */
function headerOf (address: string, version: ProxyProtocolVersion = 1, port = 40_000): Buffer {
  return encodeProxyHeader(version, { source: { address, port }, destination: { address: '192.0.2.1', port: 443 } })
}

async function whoami (client: RawClient, headers: Record<string, string> = {}): Promise<Record<string, unknown>> {
  await client.send(requestText('/whoami', { headers }))
  return JSON.parse((await client.answer()).body)
}

/** Tests that a connection is closed without a byte, and that the log says why. */
async function testRefused (t: Test, app: FastifyInstance, client: RawClient, reason: string | RegExp): Promise<void> {
  await client.closed
  t.equal(client.unread, '', 'not a byte is answered')
  t.match(await refusedBy(app).next(), { msg: 'connection refused', address: '127.0.0.1', reason }, 'the log says why')
}

/** Tests that an app goes on to serve. */
async function testServes (t: Test, app: FastifyInstance, options?: DialOptions): Promise<void> {
  const client = await dialThrough(t, app, headerOf('203.0.113.99'), options)
  t.equal((await whoami(client))['ip'], '203.0.113.99')
  client.socket.destroy()
}

async function connectionsOf (app: FastifyInstance): Promise<number> {
  return await new Promise((resolve, reject) => app.server.getConnections((error, count) => error ? reject(error) : resolve(count)))
}

for (const tls of [false, true]) {
  t.test(tls ? 'over TLS' : 'without TLS', async (t) => {
    t.test('the header tells whose connection it is, for every request of it', async (t) => {
      const app = await startProxied(t, { tls })
      for (const version of [1, 2] as const) {
        for (const [address, remoteFamily] of [['203.0.113.7', 'IPv4'], ['2001:db8::7', 'IPv6']] as const) {
          const client = await dialThrough(t, app, headerOf(address, version, 1234), { tls })
          const expected = { ip: address, remoteAddress: address, remotePort: 1234, remoteFamily }
          t.same(await whoami(client), expected)
          t.same(await whoami(client), expected, 'on a connection that is kept alive')
          await client.send(requestText('/whoami').repeat(3))
          for (let i = 0; i < 3; i++) t.same(JSON.parse((await client.answer()).body), expected, 'pipelined')
        }
      }
    })

    t.test('LOCAL, UNKNOWN and what is no IP address leave the connection its own address', async (t) => {
      const app = await startProxied(t, { tls })
      const unix = encodeProxyHeader(2, undefined)
      unix.set([0x21, 0x31, 0, 216], 12)
      const headers = [encodeProxyHeader(1, undefined), encodeProxyHeader(2, undefined), Buffer.concat([unix, Buffer.alloc(216, 'x')])]
      for (const header of headers) {
        const client = await dialThrough(t, app, header, { tls })
        t.same(await whoami(client), { ip: '127.0.0.1', remoteAddress: '127.0.0.1', remotePort: client.socket.localPort, remoteFamily: 'IPv4' })
      }
    })

    t.test('what comes behind the header in the same write is not lost', async (t) => {
      const app = await startProxied(t, { tls })
      const body = new SeededRandom(7).bytes(2 ** 20)
      const request = requestText('/echo', { method: 'POST', headers: { 'Content-Type': 'application/octet-stream', 'Content-Length': String(body.length) } })
      const client = tls
        ? await dialThrough(t, app, headerOf('203.0.113.7', 2), { tls })
        : await dialThrough(t, app, Buffer.concat([headerOf('203.0.113.7', 2), Buffer.from(request), body]))
      if (tls) await client.send(Buffer.concat([Buffer.from(request), body]))
      const { headers } = await client.head()
      t.ok((await client.read(Number(headers['content-length']))).equals(body), 'a body of 1 MiB')
      t.equal((await whoami(client))['ip'], '203.0.113.7')
    })

    t.test('a tunnel has the address that the header told, and its early data', async (t) => {
      const app = await startProxied(t, { tls })
      const early = new SeededRandom(8).bytes(300_000)
      const upgrade = Buffer.concat([Buffer.from(upgradeText('/relay')), early])
      const a = tls ? await dialThrough(t, app, headerOf('203.0.113.7'), { tls }) : await dialThrough(t, app, Buffer.concat([headerOf('203.0.113.7'), upgrade]))
      if (tls) await a.send(upgrade)
      t.equal((await a.head()).statusCode, 101)
      const b = await dialThrough(t, app, headerOf('2001:db8::7', 2), { tls })
      await b.upgrade(t, '/relay')
      t.same(app.relayHub.peers().map(({ address }) => address), ['203.0.113.7', '2001:db8::7'])
      t.ok((await b.read(early.length)).equals(early), 'early data')
      await testJoined(t, a, b)
    })

    t.test('limits of one client go by the address that the header told', async (t) => {
      const app = await startProxied(t, { tls, relay: { maxClientPeers: 1 } })
      const upgrade = async (address: string): Promise<number> => {
        const client = await dialThrough(t, app, headerOf(address), { tls })
        await client.send(upgradeText('/relay'))
        return (await client.head()).statusCode
      }
      t.equal(await upgrade('203.0.113.7'), 101)
      t.equal(await upgrade('203.0.113.7'), 429, 'a second tunnel of the same client')
      t.equal(await upgrade('203.0.113.8'), 101, 'a tunnel of another client')
    })

    t.test('a header may come in any two parts, or byte by byte', async (t) => {
      const app = await startProxied(t, { tls })
      for (const version of [1, 2] as const) {
        const header = headerOf('2001:db8::7', version)
        const cuts: Buffer[][] = [[...header].map((byte) => Buffer.of(byte))]
        for (let at = 1; at < header.length; at++) cuts.push([header.subarray(0, at), header.subarray(at)])
        for (const parts of cuts) {
          const [socket, taken] = await dialAndWatch(t, app)
          let sent = 0
          for (const part of parts) {
            socket.write(part)
            await taken(sent += part.length)
          }
          const client = new RawClient(tls ? connectTls({ socket, rejectUnauthorized: false }) : socket)
          t.equal((await whoami(client))['ip'], '2001:db8::7', `version ${version} in parts of ${parts[0]!.length} and more`)
          client.socket.destroy()
        }
      }
    })

    t.test('what is no header is closed at once', async (t) => {
      const app = await startProxied(t, { tls })
      const all: Array<[string | Buffer, string | RegExp]> = [
        ['GET /whoami HTTP/1.1\r\nHost: localhost\r\n\r\n', 'no PROXY header'],
        [Buffer.from('1603010200010001fc0303', 'hex'), 'no PROXY header'],
        [Buffer.alloc(70_000, 'x'), 'no PROXY header'],
        ['PROXY TCP4 1.2.3.4 5.6.7.8 1 2\nGET / HTTP/1.1\r\n', /^malformed PROXY header: a line/],
        [`PROXY UNKNOWN ${'x'.repeat(70_000)}\r\n`, /^malformed PROXY header: a line of more/],
        [lengthOf(headerOf('203.0.113.7', 2), 11), /^malformed PROXY header: 11 bytes for addresses of 12/],
        [lengthOf(headerOf('203.0.113.7', 2), 65535), /^malformed PROXY header: 65535 bytes/]
      ]
      for (const [bytes, reason] of all) await testRefused(t, app, await dialThrough(t, app, bytes), reason)
      await testServes(t, app, { tls })
    })

    t.test('a header that says it is longer than it is swallows what follows, and no more', async (t) => {
      const app = await startProxied(t, { tls })
      const hidden = requestText('/hidden')
      const client = await dialThrough(t, app, Buffer.concat([lengthOf(headerOf('203.0.113.7', 2), 12 + hidden.length), Buffer.from(hidden)]), { tls })
      t.equal((await whoami(client))['ip'], '203.0.113.7')
    })

    t.test('a header from elsewhere is not read', async (t) => {
      const strict = await startProxied(t, { tls, from: ['192.0.2.0/24', '::1'] })
      await testRefused(t, strict, await dialThrough(t, strict, headerOf('203.0.113.7')), 'not from an address that may send a PROXY header')
      const lax = await startProxied(t, { tls, from: ['192.0.2.0/24', '::1'], required: false })
      t.equal((await whoami(await dialThrough(t, lax, '', { tls })))['ip'], '127.0.0.1', 'without a header it is served')
      const client = await dialThrough(t, lax, headerOf('203.0.113.7'))
      t.match((await client.readToEnd()).toString(), tls ? /^(?:HTTP\/1.1 400 |$)/ : /^HTTP\/1.1 400 /, 'for HTTP and TLS a header is garbage')
    })

    t.test('where it is optional, a connection without a header is served as it is', async (t) => {
      const app = await startProxied(t, { tls, required: false })
      t.equal((await whoami(await dialThrough(t, app, headerOf('203.0.113.7'), { tls })))['ip'], '203.0.113.7')
      const plain = await dialThrough(t, app, '', { tls })
      t.same(await whoami(plain), { ip: '127.0.0.1', remoteAddress: '127.0.0.1', remotePort: plain.socket.localPort, remoteFamily: 'IPv4' })
      // Begins with the same letter as a header; the next with the same two bytes.
      await plain.send(requestText('/echo', { method: 'POST', headers: { 'Content-Type': 'a/b', 'Content-Length': '5' }, body: 'hello' }))
      t.equal((await plain.answer()).body, 'hello')
      await testRefused(t, app, await dialThrough(t, app, 'PROXY TCP4\r\n'), /^malformed/)
    })

    t.test('a header that does not come in time is waited for no longer', async (t) => {
      const app = await startProxied(t, { tls, timeout: 100 })
      const reason = 'no complete PROXY header after 100 ms'
      await testRefused(t, app, await dialThrough(t, app, ''), reason)
      await testRefused(t, app, await dialThrough(t, app, headerOf('203.0.113.7').subarray(0, -1)), reason)
      const slow = await dialThrough(t, app, lengthOf(headerOf('203.0.113.7', 2), 4096))
      const dribble = setInterval(() => slow.socket.write('x'), 10)
      t.teardown(() => clearInterval(dribble))
      await testRefused(t, app, slow, reason)
      const lax = await startProxied(t, { tls, timeout: 100, required: false })
      await testRefused(t, lax, await dialThrough(t, lax, ''), reason)
    })

    t.test('a connection whose header has come has all its time', async (t) => {
      const app = await startProxied(t, { tls, timeout: 200 })
      const client = await dialThrough(t, app, headerOf('203.0.113.7'), { tls })
      t.equal((await whoami(client))['ip'], '203.0.113.7')
      await delay(400)
      t.equal((await whoami(client))['ip'], '203.0.113.7')
    })

    t.test('a connection that breaks off within the header leaves nothing behind', async (t) => {
      const app = await startProxied(t, { tls })
      for (const leave of ['end', 'resetAndDestroy'] as const) {
        for (const bytes of [headerOf('203.0.113.7').subarray(0, 9), headerOf('203.0.113.7', 2).subarray(0, 20)]) {
          const [socket, taken] = await dialAndWatch(t, app)
          const client = new RawClient(socket)
          socket.write(bytes)
          await taken(bytes.length)
          socket[leave]()
          await testRefused(t, app, client, 'ended within the PROXY header')
        }
      }
      await testServes(t, app, { tls })
      while (await connectionsOf(app) > 0) await delay(1)
    })

    t.test('a connection that comes and goes without a word is no line in the log', async (t) => {
      const app = await startProxied(t, { tls })
      for (const leave of ['end', 'resetAndDestroy'] as const) {
        const [socket] = await dialAndWatch(t, app)
        const closed = once(socket, 'close')
        socket[leave]()
        await closed
      }
      while (await connectionsOf(app) > 0) await delay(1)
      t.same(refusedBy(app).all, [])
    })

    t.test('closing the app ends connections whose header is awaited', async (t) => {
      for (const close of [(app: FastifyInstance) => app.close(), (app: FastifyInstance) => app.server.closeAllConnections()]) {
        const app = await startProxied(t, { tls, timeout: 1_000_000 })
        const [silent] = await dialAndWatch(t, app)
        const [begun, taken] = await dialAndWatch(t, app)
        begun.write('PROXY')
        await taken(5)
        const closed = [silent, begun].map(async (socket) => await new RawClient(socket).closed)
        await close(app)
        await Promise.all(closed)
        t.same(refusedBy(app).all, [], 'nobody was refused')
      }
    })

    t.test('closing the app lets requests under way finish', async (t) => {
      const began = new Mailbox<() => void>()
      const app = await startProxied(t, {
        tls,
        setUp (app) {
          app.get('/slow', async () => await new Promise((resolve) => began.push(() => resolve('finished'))))
        }
      })
      const client = await dialThrough(t, app, headerOf('203.0.113.7'), { tls })
      await client.send(requestText('/slow'))
      const finish = await began.next()
      const closed = app.close()
      while (app.server.listening) await delay(1)
      finish()
      t.equal((await client.answer()).body, 'finished')
      client.socket.end()
      await closed
    })

    t.test('a client may end its stream behind its request', async (t) => {
      const app = await startProxied(t, { tls })
      const client = await dialThrough(t, app, headerOf('203.0.113.7'), { tls })
      client.socket.end(requestText('/whoami'))
      t.match(JSON.parse((await client.answer()).body), { ip: '203.0.113.7' })
      await client.closed
      t.same(refusedBy(app).all, [])
    })

    t.test('a POST that offers h2c keeps its body', async (t) => {
      const app = await startProxied(t, { tls })
      const client = await dialThrough(t, app, headerOf('203.0.113.7'), { tls })
      await client.send(requestText('/echo', {
        method: 'POST',
        headers: { Connection: 'Upgrade', Upgrade: 'h2c', 'Content-Type': 'a/b', 'Content-Length': '5' },
        body: 'hello'
      }))
      t.equal((await client.answer()).body, 'hello')
    })

    t.test('a server with a factory is set up as Fastify sets up its own', async (t) => {
      const options = { keepAliveTimeout: 1234, requestTimeout: 2345, connectionTimeout: 3456, maxRequestsPerSocket: 45, ...(tls ? { https: serverCertificate() } : { http: { maxHeaderSize: 5678 } }) }
      const own = Fastify(options as FastifyServerOptions)
      const made = Fastify({ ...options, serverFactory: proxyProtocol({ from: ['127.0.0.1'] }) } as FastifyServerOptions)
      const settings = ({ server }: { server: typeof own.server }) => [
        server.constructor.name, server.keepAliveTimeout, server.requestTimeout, server.headersTimeout, server.timeout, server.maxRequestsPerSocket,
        (server as { maxHeaderSize?: number }).maxHeaderSize, server.eventNames().map((name) => [name, server.listenerCount(name)])
      ]
      t.same(settings(made), settings(own))
      t.match(await made.listen({ port: 0, host: '127.0.0.1' }), tls ? /^https:/ : /^http:/)
      t.equal(made.server.listening, true)
      t.same(made.addresses(), [made.server.address()])
      await made.close()
      t.equal(made.server.listening, false)
      await own.close()
    })

    t.test('connections whose header is awaited count to maxConnections', async (t) => {
      const app = await startProxied(t, { tls })
      app.server.maxConnections = 1
      const [silent] = await dialAndWatch(t, app)
      const dropped = once(app.server, 'drop')
      const client = await dialThrough(t, app, '')
      await dropped
      await client.closed
      silent.destroy()
      while (await connectionsOf(app) > 0) await delay(1)
      await testServes(t, app, { tls })
    })
  })
}

t.test('trustProxy is about the address that the header told', async (t) => {
  const app = await startProxied(t, { server: { trustProxy: '203.0.113.7' } })
  const forwarded = { 'X-Forwarded-For': '198.51.100.1' }
  t.equal((await whoami(await dialThrough(t, app, headerOf('203.0.113.7')), forwarded))['ip'], '198.51.100.1')
  t.equal((await whoami(await dialThrough(t, app, headerOf('203.0.113.8')), forwarded))['ip'], '203.0.113.8')
})

t.test('where it is optional, a request may begin like a header', async (t) => {
  const app = await startProxied(t, { required: false })
  const post = requestText('/echo', { method: 'POST', headers: { 'Content-Type': 'a/b', 'Content-Length': '5' }, body: 'hello' })
  for (const text of [post, `\r\n${post}`]) {
    for (const cut of [1, 2, 3]) {
      const [socket, taken] = await dialAndWatch(t, app)
      const client = new RawClient(socket)
      await client.send(text.slice(0, cut))
      await taken(cut)
      await client.send(text.slice(cut))
      t.equal((await client.answer()).body, 'hello')
    }
  }
})

t.test('addresses of proxies may be IPv4, IPv6, and subnets of them', async (t) => {
  const connects: Array<[from: string, isProxy: boolean]> = [
    ['127.0.0.0/8', true], ['127.0.0.1/32', true], ['0.0.0.0/0', true], ['127.5.6.7/8', true],
    ['127.0.0.2', false], ['128.0.0.0/8', false], ['::1', false]
  ]
  for (const [from, isProxy] of connects) {
    const app = await startProxied(t, { from: [from], required: false })
    const client = await dialThrough(t, app, Buffer.concat([headerOf('203.0.113.7'), Buffer.from(requestText('/whoami'))]))
    t.equal((await client.answer()).statusCode, isProxy ? 200 : 400, from)
  }
  for (const [from, host] of [['127.0.0.1', '127.0.0.1'], ['::1', '::1'], ['::/64', '::1']] as const) {
    const app = await startProxied(t, { from: [from], listen: { host: '::' } })
    t.equal((await whoami(await dialThrough(t, app, headerOf('203.0.113.7'), { host })))['ip'], '203.0.113.7', `${from} on a listener of both families`)
  }
})

function unixListener (t: Test): { path: string } {
  const directory = mkdtempSync(join(tmpdir(), 'proxy-protocol-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  return { path: join(directory, 'socket') }
}

t.test('a proxy may come over a unix socket', async (t) => {
  const app = await startProxied(t, { from: ['unix:'], listen: unixListener(t) })
  t.equal((await whoami(await dialThrough(t, app, headerOf('203.0.113.7'))))['ip'], '203.0.113.7')
  t.equal((await whoami(await dialThrough(t, app, encodeProxyHeader(2, undefined))))['ip'], undefined, 'without a client')
  const closed = await startProxied(t, { from: ['127.0.0.1', '::/0'], listen: unixListener(t) })
  const client = await dialThrough(t, closed, headerOf('203.0.113.7'))
  await client.closed
  t.match(await refusedBy(closed).next(), { reason: 'not from an address that may send a PROXY header' })
})

t.test('over a unix socket, too, a pair of tunnels can be ended', async (t) => {
  const app = await startProxied(t, { from: ['unix:'], listen: unixListener(t) })
  const a = await dialThrough(t, app, headerOf('203.0.113.7'))
  await a.upgrade(t, '/relay')
  const b = await dialThrough(t, app, headerOf('203.0.113.8'))
  await b.upgrade(t, '/relay')
  await testJoined(t, a, b)
  const { channel, id } = app.relayHub.peers()[0]!
  t.equal(app.relayHub.disconnect({ channel: channel.name, scope: channel.scope, id }), 1)
  await Promise.all([a.closed, b.closed])
})

t.test('an app hears of a failed TLS handshake with the address that the header told', async (t) => {
  const failures = new Mailbox<string | undefined>()
  const app = await startProxied(t, {
    tls: true,
    server: {
      clientErrorHandler (_error, socket) {
        failures.push(socket.remoteAddress)
        socket.destroy()
      }
    }
  })
  const client = await dialThrough(t, app, Buffer.concat([headerOf('203.0.113.7'), Buffer.from('GET / HTTP/1.1\r\n\r\n')]))
  t.equal(await failures.next(), '203.0.113.7')
  await client.closed
})

t.test('a TLS connection whose client cannot be told is closed', async (t) => {
  const app = await startProxied(t, { tls: true })
  const secure = new TLSSocket(new Duplex({ read () {}, write (_chunk, _encoding, done) { done() } }))
  app.server.emit('secureConnection', secure)
  t.equal(secure.destroyed, true)
  t.match(await refusedBy(app).next(), { reason: 'a TLS connection that does not tell what it goes through' })
  t.match(app.relayHub.stats().refusedConnections, { 'unknown-client': 1 })
})

t.test('what is refused is counted by reason, and what is not is not', async (t) => {
  const app = await startProxied(t, { timeout: 100 })
  const nothing = { 'not-a-proxy': 0, 'no-header': 0, malformed: 0, incomplete: 0, timeout: 0, 'unknown-client': 0 }
  await testServes(t, app)
  t.same(app.relayHub.stats().refusedConnections, nothing)
  for (const bytes of [requestText('/whoami'), requestText('/whoami'), 'PROXY TCP4\r\n', 'PROX']) await (await dialThrough(t, app, bytes)).closed
  const [socket, taken] = await dialAndWatch(t, app)
  const client = new RawClient(socket)
  socket.write('PROX')
  await taken(4)
  socket.end()
  await client.closed
  t.same(app.relayHub.stats().refusedConnections, { ...nothing, 'no-header': 2, malformed: 1, timeout: 1, incomplete: 1 })
  const elsewhere = await startProxied(t, { from: ['::1'] })
  await (await dialThrough(t, elsewhere, '')).closed
  t.same(elsewhere.relayHub.stats().refusedConnections, { ...nothing, 'not-a-proxy': 1 })
  const own = await startApp(t, () => {})
  t.same(own.relayHub.stats().refusedConnections, {}, 'a server of Fastify’s own refuses none')
})

t.test('the factory has the types of Fastify with and without TLS', async (t) => {
  const serverFactory = proxyProtocol({ from: ['127.0.0.1'] })
  const plain = Fastify({ serverFactory })
  const secure = Fastify({ serverFactory, https: serverCertificate() })
  const both: [HttpServer, HttpsServer] = [plain.server, secure.server]
  t.ok(both[0] instanceof HttpServer)
  t.ok(both[1] instanceof HttpsServer)
})

t.test('options that are wrong are refused when the factory is made', async (t) => {
  const wrong: Array<[options: object, message: RegExp]> = [
    [{}, /^The option from must be a list/],
    [{ from: [] }, /^The option from/],
    [{ from: '127.0.0.1' }, /^The option from/],
    [{ from: ['localhost'] }, /^The option from must be .*, not 'localhost'/],
    [{ from: ['127.0.0.1', '10.1'] }, /not '10.1'/],
    [{ from: ['10.0.0.0/33'] }, /not '10.0.0.0\/33'/],
    [{ from: ['::/129'] }, /not '::\/129'/],
    [{ from: ['10.0.0.0/'] }, /not '10.0.0.0\/'/],
    [{ from: ['10.0.0.0/8/8'] }, /not '10.0.0.0\/8\/8'/],
    [{ from: ['fe80::1%eth0'] }, /not 'fe80::1%eth0'/],
    [{ from: [10] }, /not 10/],
    [{ from: ['::1'], required: 'yes' }, /^The option required/],
    [{ from: ['::1'], timeout: 0 }, /^The option timeout/],
    [{ from: ['::1'], timeout: Infinity }, /^The option timeout/]
  ]
  for (const [options, message] of wrong) {
    t.throws(() => proxyProtocol(options as ProxyProtocolOptions), { code: 'FST_RELAY_OPTION', message }, JSON.stringify(options))
  }
  t.throws(() => Fastify({ http2: true, serverFactory: proxyProtocol({ from: ['::1'] }) } as object), { code: 'FST_RELAY_OPTION', message: /^The option http2/ })
})

t.test('whatever a proxy sends, in whatever parts, the app goes on to serve', async (t) => {
  const app = await startProxied(t)
  const header = fc.tuple(fc.constantFrom(1 as const, 2 as const), fc.oneof(fc.ipV4(), fc.ipV6())).map(([version, address]) => headerOf(address, version))
  const changes = fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 2 })
  const behind = fc.oneof(fc.constant(Buffer.from(requestText('/whoami'))), fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)))
  await fc.assert(fc.asyncProperty(header, changes, behind, fc.array(fc.integer({ min: 1, max: 100 }), { minLength: 1 }), async (header, changes, behind, lengths) => {
    const bytes = Buffer.concat([header, behind])
    for (const [at, value] of changes) bytes[at % bytes.length] = value
    const [socket] = await dialAndWatch(t, app)
    const client = new RawClient(socket)
    for (let position = 0, i = 0; position < bytes.length; i++) {
      const end = position + lengths[i % lengths.length]!
      socket.write(bytes.subarray(position, end))
      position = end
      await new Promise((resolve) => setImmediate(resolve))
    }
    socket.end()
    await client.closed
  }), { numRuns: 150, interruptAfterTimeLimit: 10_000 })
  await testServes(t, app)
  while (await connectionsOf(app) > 0) await delay(1)
  t.ok(refusedBy(app).all.length > 0)
})

t.test('connections whose header is awaited count for maxConnections, and nobody but a proxy can have one', async (t) => {
  const app = await startProxied(t, { timeout: 600_000 })
  const { port } = app.server.address() as AddressInfo
  for (let i = 0; i < 50; i++) {
    const stranger = new RawClient(connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' }))
    await stranger.closed
  }
  app.server.maxConnections = 2
  const waiting = Array.from({ length: 2 }, () => connect({ port, host: '127.0.0.1' }))
  for (const socket of waiting) {
    t.teardown(() => socket.destroy())
    socket.on('error', () => {})
    socket.write('PROXY ')
  }
  while (await connectionsOf(app) < 2) await delay(1)
  const dropped = once(app.server, 'drop')
  const third = new RawClient(connect({ port, host: '127.0.0.1' }))
  await Promise.all([dropped, third.closed])
  waiting[0]!.destroy()
  while (await connectionsOf(app) > 1) await delay(1)
  await testServes(t, app)
})

t.test('many headers that are never finished hold little, keep nobody out, and end at the timeout', async (t) => {
  const COUNT = 300
  const app = await startProxied(t, { timeout: 2000 })
  const unfinished = [
    headerOf('203.0.113.7').subarray(0, -1),
    // As long as a header may say it is.
    Buffer.concat([lengthOf(headerOf('203.0.113.7', 2), 4096), Buffer.alloc(4096 - 13)])
  ]
  const before = process.memoryUsage().arrayBuffers
  const slow = await Promise.all(Array.from({ length: COUNT }, async (_, i) => {
    const client = await dialThrough(t, app, '')
    const bytes = unfinished[i % 2]!
    for (let at = 0; at < bytes.length; at += 512) {
      client.socket.write(bytes.subarray(at, at + 512))
      await delay(1)
    }
    return client
  }))
  await testServes(t, app)
  const kept = process.memoryUsage().arrayBuffers - before
  t.ok(kept < 16 * 2 ** 20, `${(kept / 2 ** 20).toFixed(1)} MiB of array buffers`)
  await Promise.all(slow.map(({ closed }) => closed))
  while (await connectionsOf(app) > 0) await delay(1)
  t.equal(app.relayHub.stats().refusedConnections['timeout'], COUNT)
})
