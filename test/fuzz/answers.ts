import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import fc, { type Arbitrary } from 'fast-check'
import { connect, RelayConnection, type RelayRefusedError } from '../../lib/client/index.ts'
import { wg } from '../../lib/framing/wg.ts'
import { frames } from '../helpers/fake-relay.ts'
import { anyBytes, chunking, cut, datagram, mutate, mutation, type Chunking } from './arbitraries.ts'
import type { Fuzz } from './fuzz.ts'

const HANDSHAKE_TIMEOUT = 150
const FRAMINGS = [undefined, ['wg'], ['len16', 'wg'], 'raw'] as const

const statusLine = fc.oneof(
  { weight: 6, arbitrary: fc.constant('HTTP/1.1 101 Switching Protocols') },
  {
    weight: 6,
    arbitrary: fc.constantFrom(200, 204, 301, 304, 400, 401, 403, 404, 407, 408, 409, 421, 425, 426, 429, 500, 502, 503, 599, 999)
      .map((status) => `HTTP/1.1 ${status} Words`)
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols', 'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 403 No', 'HTTP/1.0 101 x',
      'HTTP/1.1 101', 'HTTP/1.1 503', 'HTTP/1.1 000 x', 'HTTP/1.1 99 x', 'HTTP/2.0 101 x', 'ICY 200 OK', 'SSH-2.0-x', '')
  }
)

const headerLine = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.constantFrom(
      'Connection: Upgrade', 'Upgrade: spanza', 'Spanza-Framing: wg', 'Spanza-Framing: len16', 'Spanza-Max-Packet: 2048', 'Content-Length: 0',
      'Content-Length: 40', 'Transfer-Encoding: chunked', 'Retry-After: 5', 'Retry-After: Wed, 21 Oct 2099 07:28:00 GMT', 'Connection: close')
  },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      'Upgrade: websocket', 'Upgrade: SPANZA', 'Upgrade: spanza, spanza', 'Upgrade:', 'Spanza-Framing: raw', 'Spanza-Framing: WG', 'Spanza-Framing: \xff\x01',
      'Spanza-Framing:', 'Spanza-Max-Packet: 0', 'Spanza-Max-Packet: 65536', 'Spanza-Max-Packet: 1', 'Spanza-Max-Packet: 1e3', 'Spanza-Max-Packet: -1',
      'Retry-After: -1', 'Retry-After: 1e9', 'Retry-After: 99999999999', 'Retry-After: never', 'Retry-After: 0', 'Retry-After: -271821-04-20',
      'Location: https://example.com/\x7f', 'Location: ' + 'x'.repeat(5000), 'Content-Length: -1', 'Content-Length: 1, 2', 'Content-Encoding: gzip',
      'Transfer-Encoding: x', '__proto__: x', ' folded', ': x', 'no colon', 'X: \0', `X-Long: ${'x'.repeat(20_000)}`)
  }
)

const upgradeLines = ['Connection: Upgrade', 'Upgrade: spanza', 'Spanza-Framing: wg', 'Spanza-Max-Packet: 2048']

const body = fc.oneof(
  fc.constant(Buffer.alloc(0)),
  fc.array(datagram, { maxLength: 4 }).map((datagrams) => frames(wg, datagrams)),
  fc.oneof(fc.json(), fc.record({ code: fc.string(), message: fc.oneof(fc.string({ unit: 'binary', maxLength: 2000, size: 'max' }), fc.integer()) }).map((value) => JSON.stringify(value)))
    .map((text) => Buffer.from(text)),
  fc.constantFrom('{"code":', '5\r\n12345\r\n0\r\n\r\n', 'ffffffff\r\n', '0\r\nX: y\r\n\r\n', '<html>', '[]', 'null', '{"code":null,"message":{}}').map((text) => Buffer.from(text)),
  fc.constant(Buffer.alloc(20_000, '[')),
  anyBytes(40)
)

const answerBytes = fc.oneof(
  { weight: 1, arbitrary: anyBytes(100) },
  {
    weight: 8,
    arbitrary: fc.tuple(statusLine, fc.boolean(), fc.array(headerLine, { maxLength: 5 }), body)
      .map(([status, isUpgrade, lines, body]) => Buffer.concat([
        Buffer.from([status, ...(isUpgrade ? upgradeLines : []), ...lines, '', ''].join('\r\n'), 'latin1'), body
      ]))
  }
)

interface Attempt {
  bytes: Buffer
  chunking: Chunking
  then: 'stay' | 'end' | 'break'
  framings: typeof FRAMINGS[number]
}

const attempt: Arbitrary<Attempt> = fc.record({
  bytes: fc.tuple(answerBytes, fc.oneof({ weight: 2, arbitrary: fc.constant([]) }, { weight: 1, arbitrary: fc.array(mutation(), { minLength: 1, maxLength: 3 }) }))
    .map(([bytes, mutations]) => mutate(bytes, mutations)),
  chunking,
  then: fc.constantFrom('end', 'stay', 'break'),
  framings: fc.constantFrom(...FRAMINGS)
})

const MAX_CHUNKS = 40

async function answer (socket: Socket, { bytes, chunking, then }: Attempt): Promise<void> {
  socket.on('error', () => {})
  socket.resume()
  await once(socket, 'data')
  const chunks = cut(bytes, chunking)
  for (const chunk of [...chunks.slice(0, MAX_CHUNKS), Buffer.concat(chunks.slice(MAX_CHUNKS))]) {
    if (!socket.writable) return
    socket.write(chunk)
    await setImmediate()
  }
  if (then === 'end') socket.end()
  else if (then === 'break') socket.resetAndDestroy()
}

/** Connects, and holds what came of it against what the client promises. */
async function ask (url: string, { framings }: Attempt): Promise<void> {
  let tunnel: RelayConnection | Duplex
  try {
    tunnel = await connect(url, { handshakeTimeout: HANDSHAKE_TIMEOUT, ...(framings === undefined ? {} : { framings }) } as { framings: 'raw' })
  } catch (error) {
    const { code, message, statusCode, relayCode, retryAfter } = error as RelayRefusedError
    assert.match(code, /^FST_RELAY_(?:REFUSED|CONNECT|ANSWER)$/, (error as Error).stack)
    // eslint-disable-next-line no-control-regex
    assert.match(message, /^[^\x00-\x1f\x7f-\x9f]{1,1500}$/u)
    if (code !== 'FST_RELAY_REFUSED' as string) return
    assert.ok(Number.isInteger(statusCode) && statusCode !== 101, `status ${statusCode}`)
    assert.ok(relayCode === undefined || relayCode.length <= 500)
    assert.ok(retryAfter === undefined || (Number.isFinite(retryAfter) && retryAfter >= 0), `${retryAfter} s`)
    return
  }
  assert.equal(tunnel instanceof RelayConnection, framings !== 'raw')
  if (tunnel instanceof RelayConnection) {
    const connection: RelayConnection = tunnel
    const closed = once(connection, 'close')
    connection.on('message', (datagram) => assert.ok(datagram.length > 0))
    connection.send(Buffer.from('hello'))
    await setImmediate()
    connection.close()
    await closed
  } else {
    tunnel.resume()
    tunnel.end('hello')
    await setImmediate()
    tunnel.destroy()
  }
}

const relayAnswers: Fuzz = {
  name: 'relay-answers',
  title: 'whatever a relay answers, the client connects or says what is wrong, within its time, and throws nowhere else',
  runs: 25,
  prepare: async (scope) => {
    const attempts = new Map<number, Attempt>()
    const open = new Set<Socket>()
    const server = createServer((socket) => {
      open.add(socket)
      socket.on('close', () => open.delete(socket))
      // Which attempt this is, its own path tells; the answer is not to depend on it.
      socket.once('data', (request) => {
        const number = Number(/^GET \/(\d+) /.exec(request.toString('latin1'))?.[1])
        const attempt = attempts.get(number)
        // The client may have given up by now.
        if (attempt === undefined) return socket.destroy()
        socket.unshift(request)
        answer(socket, attempt)
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    scope.teardown(() => server.close())
    const { port } = server.address() as AddressInfo
    let number = 0
    return fc.asyncProperty(fc.array(attempt, { minLength: 1, maxLength: 8 }), async (group) => {
      try {
        await Promise.all(group.map(async (attempt) => {
          attempts.set(++number, attempt)
          await ask(`http://127.0.0.1:${port}/${number}`, attempt)
        }))
      } finally {
        attempts.clear()
        for (const socket of open) socket.destroy()
      }
    })
  }
}

export const answerFuzzes: Fuzz[] = [relayAnswers]
