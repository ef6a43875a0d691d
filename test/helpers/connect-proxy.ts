import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createTlsServer, type ServerOptions } from 'node:https'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'
import { Mailbox } from './mailbox.ts'

export interface ConnectProxyOptions {
  tls?: ServerOptions
  /** `user:password` to ask for. */
  credentials?: string
  /** The answer to each CONNECT, in place of a way. */
  answer?: string
  /** Where ways lead, whatever was asked for. */
  leadsTo?: number
}

/** A proxy that knows CONNECT only, on 127.0.0.1 until the test ends. */
export class ConnectProxy {
  readonly requests = new Mailbox<IncomingMessage>()
  /** The ways that are open. */
  readonly ways = new Mailbox<Socket>()
  readonly connections = new Mailbox<Socket>()
  readonly server: Server
  readonly #scheme: string

  constructor (t: Test, { tls, credentials, answer, leadsTo }: ConnectProxyOptions) {
    this.#scheme = tls === undefined ? 'http' : 'https'
    this.server = tls === undefined ? createServer() : createTlsServer(tls)
    this.server.on('connection', (socket: Socket) => {
      this.connections.push(socket)
      t.teardown(() => socket.destroy())
    })
    this.server.on('connect', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      this.requests.push(request)
      socket.on('error', () => {})
      if (answer !== undefined) return socket.end(answer)
      const expected = credentials === undefined ? undefined : `Basic ${Buffer.from(credentials).toString('base64')}`
      if (request.headers['proxy-authorization'] !== expected) {
        return socket.end('HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="of a test"\r\nContent-Length: 0\r\n\r\n')
      }
      const { hostname, port } = new URL(`http://${request.url}`)
      const way = connectTcp({ host: leadsTo === undefined ? hostname.replace(/^\[(.+)\]$/, '$1') : '127.0.0.1', port: leadsTo ?? Number(port || 80), allowHalfOpen: true })
      t.teardown(() => way.destroy())
      way.on('error', () => socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n'))
      way.once('connect', () => {
        this.ways.push(way)
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
        way.write(head)
        way.pipe(socket).pipe(way)
        socket.on('close', () => way.destroy())
      })
    })
    t.teardown(() => this.server.close())
  }

  get port (): number {
    return (this.server.address() as AddressInfo).port
  }

  /** Its URL, with credentials if there are some to show. */
  url (credentials = ''): string {
    return `${this.#scheme}://${credentials === '' ? '' : `${credentials}@`}127.0.0.1:${this.port}`
  }
}

export async function connectProxy (t: Test, options: ConnectProxyOptions = {}): Promise<ConnectProxy> {
  const proxy = new ConnectProxy(t, options)
  proxy.server.listen(0, '127.0.0.1')
  await once(proxy.server, 'listening')
  return proxy
}
