import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import type { DatagramSink, Framing } from '../../lib/framing/framing.ts'
import { len16 } from '../../lib/framing/len16.ts'
import { webSocketEncoding } from '../../lib/framing/websocket-encoding.ts'
import { CLOSING, DRAIN, NOTICE, PING, PONG, pong, readClosing, readDrain, readNotice, wg } from '../../lib/framing/wg.ts'
import { clearReserved } from '../../lib/framing/wireguard.ts'
import { readHubOptions } from '../../lib/hub/hub-options.ts'
import { closeReasons } from '../../lib/tunnel/close-reasons.ts'
import { openSession } from '../helpers/http2-client.ts'
import { namesIn, readPage, tablesOf } from '../helpers/markdown.ts'
import { RawClient } from '../helpers/raw-client.ts'
import { serverCertificate, startApp } from '../helpers/relay-app.ts'

// Everything in docs/wire-protocol.md that a client could be built by: its requests are sent, its bytes decoded and encoded.

const page = readPage('docs/wire-protocol.md')

function bytesOf (hex: string): Buffer {
  return Buffer.from(hex.replaceAll(' ', ''), 'hex')
}

function hexOf (bytes: Uint8Array): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')
}

/** The blocks of code behind a marker, up to the next heading: a request, and its answer where there is one. */
function exchange (name: string): string[] {
  const marker = `<!-- exchange: ${name} -->`
  const [section] = page.slice(page.indexOf(marker)).split(/^#/m)
  return [...section!.matchAll(/^```\n(.*?)^```$/gms)].map(([, block]) => block!.trimEnd())
}

/** What decoding these bytes gives, in the words of the tables. */
function decode (framing: Framing, bytes: Buffer): string {
  const found: string[] = []
  const sink: DatagramSink = {
    datagram: (chunk, _frame, start, end, stamped) => {
      const datagram = Buffer.from(chunk.subarray(start, end))
      if (stamped) clearReserved(datagram, 0)
      found.push(`datagram \`${hexOf(datagram)}\``)
    },
    tooLarge: () => found.push('too large'),
    keepalive: () => found.push('keepalive'),
    control: (type, chunk, start, end) => found.push(controlText(type, chunk, start, end))
  }
  const decoder = framing.createDecoder(sink, { maxPacketSize: 65535 })
  const fault = decoder.push(bytes) ?? decoder.end()
  if (fault !== undefined) found.push(`error \`${fault.reason}\``)
  return found.join(', ')
}

function controlText (type: number, chunk: Buffer, start: number, end: number): string {
  if (type === PING) return `ping \`${hexOf(chunk.subarray(start, end))}\``
  if (type === PONG) return `pong \`${hexOf(chunk.subarray(start, end))}\``
  if (type === DRAIN) return `drain \`${readDrain(chunk, start)}\``
  if (type === CLOSING || type === NOTICE) {
    const { code, text } = type === CLOSING ? readClosing(chunk, start, end) : readNotice(chunk, start, end)!
    return `${type === CLOSING ? 'closing' : 'notice'} \`${code}\` \`${text}\``
  }
  return 'skipped'
}

/** Those of these words, as the library writes them; undefined where it writes no such frame. */
function encode (framing: Framing, words: string): Buffer | undefined {
  const [first = '', second = ''] = namesIn(words)
  switch (words.split(' ')[0]) {
    case 'datagram': {
      const datagram = bytesOf(first)
      const target = Buffer.alloc(datagram.length + framing.maxOverhead)
      return target.subarray(0, framing.encode(target, 0, datagram, 0, datagram.length, false))
    }
    case 'keepalive': return framing.keepalive()
    case 'pong': return pong(bytesOf(first), 0, 8)
    case 'drain': return framing.drain(Number(first))
    case 'closing': return framing.closing(Number(first), second)
    case 'notice': return framing.notice(Number(first), second)
  }
}

for (const framing of [wg, len16]) {
  t.test(`the examples of ${framing.name}`, (t) => {
    for (const [hex, words] of tablesOf(page, `on the tunnel in \`${framing.name}\``).flat()) {
      const bytes = bytesOf(namesIn(hex!)[0]!)
      t.equal(decode(framing, bytes), words, `${hex} decoded`)
      const written = encode(framing, words!)
      if (written !== undefined) t.equal(hexOf(written), hexOf(bytes), `${words} encoded`)
    }
    t.end()
  })
}

t.test('lengths of frames in wg', (t) => {
  for (const [bytes, , length] of tablesOf(page, 'bytes', 'frame', 'length in all').flat()) {
    if (!/^\d+$/.test(length!)) continue
    const message = Buffer.alloc(Number(length))
    bytesOf(namesIn(bytes!)[0]!).copy(message)
    t.match(decode(wg, message), /^datagram `[^`]+`$/, `${bytes} of ${length}`)
    t.equal(hexOf(encode(wg, `datagram \`${hexOf(message)}\``)!), hexOf(message))
  }
  for (const [what, type, lengths] of tablesOf(page, '`wg` control frame').flat()) {
    const [smallest, largest = smallest] = lengths!.split(' to ').map(Number) as [number, number?]
    const [number] = namesIn(type!)
    const isAllowed = (length: number): boolean => !decode(wg, Buffer.concat([bytesOf(number!), Buffer.from([0, length >> 8, length & 255]), Buffer.alloc(length)])).includes('error')
    t.ok(isAllowed(smallest), `${what} of ${smallest}`)
    t.ok(isAllowed(largest!), `${what} of ${largest}`)
    if (what === 'notice') t.ok(isAllowed(1024), 'a long notice is skipped')
    else t.notOk(isAllowed(largest! + 1), `${what} of ${largest! + 1}`)
    if (smallest > 0 && what !== 'notice') t.notOk(isAllowed(smallest - 1), `${what} of ${smallest - 1}`)
  }
  t.end()
})

t.test('codes', (t) => {
  const documented = tablesOf(page, 'closing code').flat().map(([code, reason, again]) => [namesIn(reason!)[0], Number(code), again!.startsWith('yes')])
  t.same(documented, Object.entries(closeReasons).map(([name, { code, retry }]) => [name, code, retry]))
  t.end()
})

t.test('times of keepalives', (t) => {
  const { keepaliveInterval, keepaliveTimeout } = readHubOptions({})
  t.ok(tablesOf(page, 'tunnel', `the relay sends, after ${keepaliveInterval / 1000} s of silence`, `closed after ${keepaliveTimeout / 1000} s without a byte`))
  t.end()
})

t.test('frames of WebSockets', (t) => {
  const [relays, clients, ping] = tablesOf(page, 'frame', 'bytes').flat().map(([, bytes]) => bytesOf(namesIn(bytes!)[0]!))
  const target = Buffer.alloc(16)
  t.equal(hexOf(target.subarray(0, webSocketEncoding.encode(target, 0, Buffer.from('hi'), 0, 2, false))), hexOf(relays!))
  t.equal(hexOf(webSocketEncoding.keepalive()), hexOf(ping!))
  const mask = clients!.subarray(2, 6)
  t.equal(Buffer.from(clients!.subarray(6).map((byte, i) => byte ^ mask[i]!)).toString(), 'hi')
  t.equal(clients![1], 0x80 | 2)
  t.end()
})

async function startRelay (t: Test): Promise<FastifyInstance> {
  return await startApp(t, (app) => app.relay('/relay/:network', {
    onRequest: async ({ headers }) => {
      if (headers.upgrade !== 'UoTLV/1' && headers.authorization !== 'Bearer a-long-random-token') throw Object.assign(new Error('no token'), { statusCode: 401 })
    }
  }), { server: { http2: true, https: { ...serverCertificate(), allowHTTP1: true } } as object })
}

/** Sends a request of the page, and tests that the answer is the page's. */
async function ask (t: Test, app: FastifyInstance, name: string): Promise<RawClient> {
  const [request, answer] = exchange(name)
  const client = await RawClient.dial(t, app, { tls: true })
  await client.send(`${request!.replaceAll('\n', '\r\n')}\r\n\r\n`)
  const { head, statusCode } = await client.head()
  t.equal(statusCode, 101, name)
  if (answer !== undefined) t.same(head.trimEnd().split('\r\n').sort(), answer.split('\n').sort(), name)
  return client
}

t.test('the exchanges over HTTP/1.1, between which datagrams and bytes go', async (t) => {
  const app = await startRelay(t)
  const spanza = await ask(t, app, 'spanza')
  const uotlv = await ask(t, app, 'uotlv')
  await spanza.send(bytesOf('00 00 00 02 68 69'))
  t.equal(hexOf(await uotlv.read(4)), '00 02 68 69', 'from wg to len16')
  await uotlv.send(bytesOf('00 00 00 02 68 69'))
  t.equal(hexOf(await spanza.read(6)), '00 00 00 02 68 69', 'and back, where a zero length is ignored')
  await spanza.send(bytesOf('80 00 00 08 00 00 00 00 00 00 00 01'))
  t.equal(hexOf(await spanza.read(12)), '81 00 00 08 00 00 00 00 00 00 00 01', 'a ping is answered')
  spanza.socket.end()
  await spanza.closed

  const webSocket = await ask(t, app, 'websocket')
  const [relays, clients] = tablesOf(page, 'frame', 'bytes').flat().map(([, bytes]) => bytesOf(namesIn(bytes!)[0]!))
  await webSocket.send(clients!)
  t.equal(hexOf(await uotlv.read(4)), '00 02 68 69', 'from a WebSocket')
  await uotlv.send(bytesOf('00 02 68 69'))
  t.equal(hexOf(await webSocket.read(4)), hexOf(relays!), 'and back')

  const pair = [await ask(t, app, 'httpupgrade'), await ask(t, app, 'httpupgrade')] as const
  await pair[0].send('bytes')
  t.equal((await pair[1].read(5)).toString(), 'bytes', 'a byte stream')
})

t.test('the exchange over HTTP/2', async (t) => {
  const app = await startRelay(t)
  const [request, answer] = exchange('http2')
  const headersOf = (text: string): Record<string, string> => Object.fromEntries(text.split('\n').map((line) => {
    const [, name, value] = /^(:?[^:]+): (.*)$/.exec(line)!
    return [name!, value!]
  }))
  const session = await openSession(t, app, { tls: true })
  t.equal(session.remoteSettings.enableConnectProtocol, true)
  const stream = session.request(headersOf(request!), { endStream: false })
  const head = await new Promise<Record<string, unknown>>((resolve) => stream.once('response', resolve))
  for (const [name, value] of Object.entries(headersOf(answer!))) t.equal(String(head[name]), value, name)
  stream.write(bytesOf('80 00 00 08 00 00 00 00 00 00 00 01'))
  const [reply] = await new Promise<Buffer[]>((resolve) => stream.once('data', (chunk: Buffer) => resolve([chunk])))
  t.equal(hexOf(reply!), '81 00 00 08 00 00 00 00 00 00 00 01')
})
