import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, request as httpRequest, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Test } from 'tap'

const BLOCK = randomBytes(1 << 20)

/** So many MiB, each of them different. */
function * content (mebibytes: number): Generator<Buffer> {
  for (let i = 0; i < mebibytes; i++) {
    const block = Buffer.from(BLOCK)
    block.writeUInt32BE(i)
    yield block
  }
}

async function digest (stream: Iterable<Buffer> | AsyncIterable<Buffer>): Promise<string> {
  const hash = createHash('sha256')
  for await (const chunk of stream) hash.update(chunk)
  return hash.digest('hex')
}

/** The checksum that a download of this size must have, and an upload. */
export function checksum (mebibytes: number): Promise<string> {
  return digest(content(mebibytes))
}

/** A web server, and its clients behind an HTTP proxy, each with a connection of its own. */
export class Origin {
  readonly #server: Server
  readonly #held: Array<() => void> = []
  #onHeld = (): void => {}

  private constructor (server: Server) {
    this.#server = server
    server.on('request', (request: IncomingMessage, response: ServerResponse) => { this.#answer(request, response).catch(() => response.destroy()) })
  }

  /** Closed with the test. */
  static async listen (t: Test): Promise<Origin> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    t.teardown(() => { server.close(); server.closeAllConnections() })
    return new Origin(server)
  }

  /** The checksum of what has come. */
  async download (proxy: number, mebibytes: number): Promise<string> {
    return digest(await this.#request(proxy, 'GET', `/${mebibytes}`))
  }

  /** The checksum of what has arrived, as the server tells it. */
  async upload (proxy: number, mebibytes: number): Promise<string> {
    const answer = await this.#request(proxy, 'POST', '/', Readable.from(content(mebibytes)))
    return (await answer.toArray()).join('')
  }

  /** Downloads that are answered when so many are under way, and what is done then. */
  async together (proxy: number, count: number, mebibytes: number, meanwhile: () => Promise<void>): Promise<string[]> {
    const complete = new Promise<void>((resolve) => {
      this.#onHeld = () => { if (this.#held.length === count) resolve() }
    })
    const downloads = Promise.all(Array.from({ length: count }, async () => digest(await this.#request(proxy, 'GET', `/${mebibytes}?hold`))))
    await Promise.race([complete, downloads])
    await meanwhile()
    for (const release of this.#held.splice(0)) release()
    return downloads
  }

  async #request (proxy: number, method: string, path: string, body?: Readable): Promise<IncomingMessage> {
    const host = `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
    const connect = httpRequest({ host: '127.0.0.1', port: proxy, method: 'CONNECT', path: host, agent: false }).end()
    const [, socket] = await once(connect, 'connect') as [unknown, Socket]
    const request = httpRequest({ method, path, headers: { host, connection: 'close' }, createConnection: () => socket })
    const answered = once(request, 'response') as Promise<[IncomingMessage]>
    const [[response]] = await Promise.all([answered, body === undefined ? request.end() : pipeline(body, request)])
    return response
  }

  async #answer (request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url!, 'http://origin')
    if (request.method === 'POST') {
      response.end(await digest(request))
      return
    }
    if (searchParams.has('hold')) {
      await new Promise<void>((resolve) => {
        this.#held.push(resolve)
        this.#onHeld()
      })
    }
    await pipeline(Readable.from(content(Number(pathname.slice(1)))), response)
  }
}
