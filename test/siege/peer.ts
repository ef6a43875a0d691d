import { once } from 'node:events'
import { connect as connectHttp2, type ClientHttp2Session } from 'node:http2'
import { connect as connectTcp, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'

// What both sides of a siege need: connections from a chosen address, and tunnels.

export const TOKEN = 'siege'

/** Where the besieged relay listens. */
export interface Place {
  port: number
  isTls: boolean
}

export interface DialOptions {
  /** One of 127.0.0.0/8: what the relay takes for a client. */
  from: string
  /** For TLS. */
  alpn?: 'http/1.1' | 'h2'
}

/** What a connection over TLS is made on. */
const carriers = new WeakMap<Socket, Socket>()

/** A connection, which breaks without a word where nobody listens. */
export function dial ({ port, isTls }: Place, { from, alpn = 'http/1.1' }: DialOptions): Socket {
  const tcp = connectTcp({ host: '127.0.0.1', port, localAddress: from, noDelay: true, allowHalfOpen: true })
  tcp.on('error', () => {})
  if (!isTls) return tcp
  // Not checked: who the relay is does not matter here.
  const tls = connectTls({ socket: tcp, ALPNProtocols: [alpn], servername: 'localhost', rejectUnauthorized: false })
  tls.on('error', () => {})
  tcp.on('close', () => tls.destroy())
  carriers.set(tls, tcp)
  return tls
}

/** Sends a RST. */
export function reset (socket: Socket): void {
  const tcp = carriers.get(socket) ?? socket
  tcp.resetAndDestroy()
}

/** The head of an upgrade request. */
export function upgradeHead (path: string, lines: readonly string[] = [], upgrade = 'spanza'): string {
  return [`GET ${path} HTTP/1.1`, 'Host: localhost', 'Connection: Upgrade', `Upgrade: ${upgrade}`, ...lines, '', ''].join('\r\n')
}

const tunnelLines = [`Authorization: Bearer ${TOKEN}`, 'Spanza-Framing: len16']

/**
 * A tunnel of datagrams in `len16`, over HTTP/1.1.
 * @throws what was answered, or that the connection broke
 */
export async function openTunnel (place: Place, channel: string, from: string): Promise<Socket> {
  const socket = dial(place, { from })
  socket.write(upgradeHead(`/relay/${channel}`, tunnelLines))
  let answer = ''
  for (;;) {
    const chunk = await nextChunk(socket)
    answer += chunk.toString('latin1')
    const end = answer.indexOf('\r\n\r\n')
    if (end < 0) continue
    if (!answer.startsWith('HTTP/1.1 101 ')) {
      socket.destroy()
      throw new Error(`answered ${/"code":"(\w+)"/.exec(answer)?.[1] ?? answer.split('\r\n', 1)[0]}`)
    }
    const rest = Buffer.from(answer.slice(end + 4), 'latin1')
    if (rest.length > 0) socket.unshift(rest)
    return socket
  }
}

export function openSession (place: Place, from: string): ClientHttp2Session {
  const session = connectHttp2('https://localhost', { createConnection: () => dial(place, { from, alpn: 'h2' }) })
  session.on('error', () => {})
  return session
}

/** The same over HTTP/2. */
export async function openTunnelOn (session: ClientHttp2Session, channel: string): Promise<Duplex> {
  const stream = session.request({
    ':method': 'CONNECT',
    ':protocol': 'spanza',
    ':path': `/relay/${channel}`,
    ':scheme': 'https',
    ':authority': 'localhost',
    authorization: `Bearer ${TOKEN}`,
    'spanza-framing': 'len16'
  })
  stream.on('error', () => {})
  const [headers] = await Promise.race([once(stream, 'response'), once(stream, 'close').then(() => { throw new Error('the stream was closed') })])
  if (headers[':status'] !== 200) throw new Error(`answered ${headers[':status']}`)
  return stream
}

/** The next bytes of a stream that is not read otherwise. @throws when it has ended or broken */
export async function nextChunk (stream: Duplex): Promise<Buffer> {
  for (;;) {
    const chunk = stream.read() as Buffer | null
    if (chunk !== null) return chunk
    if (stream.destroyed || stream.readableEnded) throw new Error('the connection was closed')
    await new Promise<void>((resolve) => {
      const done = (): void => {
        for (const event of ['readable', 'end', 'close']) stream.off(event, done)
        resolve()
      }
      for (const event of ['readable', 'end', 'close']) stream.on(event, done)
    })
  }
}

/** A datagram as `len16` has it. */
export function encode (datagram: Buffer): Buffer {
  return Buffer.concat([Buffer.from([datagram.length >> 8, datagram.length & 0xff]), datagram])
}
