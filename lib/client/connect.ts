import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import { Socket, connect as connectTcp } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import { errors } from '../errors.ts'
import type { Framing } from '../framing/framing.ts'
import { printable } from '../printable.ts'
import { len16 } from '../framing/len16.ts'
import { wg } from '../framing/wg.ts'
import { MAX_DATAGRAM_SIZE } from '../wireguard.ts'
import { describeError } from './describe-error.ts'
import { optionError, planConnect, type ConnectOptions, type ConnectPlan, type DatagramFraming, type RawConnectOptions } from './options.ts'
import { refusalOf, REFUSAL_BODY_LIMIT } from './refusal.ts'
import { RelayConnection } from './relay-connection.ts'

const PROTOCOL = 'spanza'
const TCP_KEEPALIVE_MS = 60_000

const framingTable: Record<DatagramFraming, Framing> = { wg, len16 }

/**
 * Opens a tunnel to a relay. With `framings: 'raw'` it carries bytes and is a plain `Duplex`, half-open: the
 * caller ends its side. That one has an `error` listener that does nothing, so that an early reset does not end
 * the process; add one to hear of errors.
 *
 * @param url an `http:` or `https:` URL, without user name and password
 * @throws FST_RELAY_CLIENT_OPTION an option cannot be used
 * @throws FST_RELAY_CONNECT no answer came: the network, TLS, or no time left; see `cause`
 * @throws FST_RELAY_REFUSED the relay said no; the error is a `RelayRefusedError`
 * @throws FST_RELAY_ANSWER the answer is no relay's, or a proxy removed parts of it
 * @throws the reason of `signal`
 */
export function connect (url: string | URL, options: RawConnectOptions): Promise<Duplex>
export function connect (url: string | URL, options?: ConnectOptions): Promise<RelayConnection>
export async function connect (url: string | URL, options: ConnectOptions | RawConnectOptions = {}): Promise<RelayConnection | Duplex> {
  const plan = planConnect(url, options)
  plan.signal?.throwIfAborted()
  const transport = openTransport(plan)
  // From the first moment to the last: a reset that nobody listens to would end the process.
  transport.on('error', () => {})
  if (transport instanceof Socket) {
    transport.setNoDelay(true)
    transport.setKeepAlive(true, TCP_KEEPALIVE_MS)
  }
  return handshake(plan, transport)
}

function openTransport (plan: ConnectPlan): Duplex {
  const { hostname: host, port, servername } = plan
  if (plan.createConnection === undefined) {
    if (!plan.secure) return connectTcp({ host, port })
    const name = servername === undefined ? {} : { servername }
    return connectTls({ ...plan.tls, ...name, host, port, ALPNProtocols: ['http/1.1'] })
  }
  let transport
  try {
    transport = plan.createConnection()
  } catch (error) {
    throw connectError(`createConnection threw: ${describeError(error)}`, error)
  }
  if (typeof transport?.write !== 'function' || typeof transport.pipe !== 'function') {
    throw optionError('createConnection', 'a function that returns a Duplex', transport)
  }
  return transport
}

/** Sends the request on the transport and waits for the answer. Whatever fails destroys the transport. */
function handshake (plan: ConnectPlan, transport: Duplex): Promise<RelayConnection | Duplex> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      createConnection: () => transport,
      path: plan.path,
      // Copied, as http wants lists that it may change.
      headers: Object.fromEntries(Object.entries(plan.headers).map(([name, value]) => [name, typeof value === 'string' ? value : [...value]])),
      setHost: false
    })

    let refusal: (() => void) | undefined
    const timer = setTimeout(() => {
      if (refusal !== undefined) refusal()
      else fail(connectError(`no answer within ${plan.handshakeTimeout} ms`))
    }, plan.handshakeTimeout)
    const onAbort = () => fail(plan.signal!.reason)
    plan.signal?.addEventListener('abort', onAbort)

    const settle = () => {
      clearTimeout(timer)
      plan.signal?.removeEventListener('abort', onAbort)
    }
    const fail = (error: unknown) => {
      settle()
      transport.destroy()
      reject(error)
    }

    request.on('error', (error) => {
      if (refusal !== undefined) return refusal()
      // Of a transport that failed at once, http says only that it hung up.
      const cause = transport.errored ?? error
      fail(connectError(describeError(cause), cause))
    })
    request.on('response', (response) => {
      // Node takes a 101 for an upgrade only if it has both headers.
      if (response.statusCode === 101) fail(errors.FST_RELAY_ANSWER(`a 101 without "Upgrade: ${PROTOCOL}"`))
      else refusal = readRefusal(response, fail)
    })
    request.on('upgrade', (response, tunnel, head) => {
      // All in the turn of the answer: what comes next on the tunnel finds its listeners in place.
      try {
        const settings = readAnswer(plan, response.headers)
        if (head.length > 0) tunnel.unshift(head)
        if (settings === undefined) {
          tunnel.allowHalfOpen = true
          resolve(tunnel)
        } else {
          resolve(new RelayConnection(tunnel, { ...plan, ...settings }))
        }
        settle()
      } catch (error) {
        fail(error)
      }
    })
    request.end()
  })
}

/** Collects the body of a refusal, as far as the limit; the returned function reports what there is so far. */
function readRefusal (response: IncomingMessage, report: (error: Error) => void): () => void {
  const chunks: Buffer[] = []
  let length = 0
  const done = () => report(refusalOf(response, Buffer.concat(chunks)))
  response.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    length += chunk.length
    if (length >= REFUSAL_BODY_LIMIT) done()
  })
  response.on('end', done)
  response.on('error', done)
  return done
}

/**
 * Reads what was agreed on; undefined for a tunnel of bytes.
 * @throws FST_RELAY_ANSWER
 */
function readAnswer (plan: ConnectPlan, headers: IncomingHttpHeaders) {
  if (headers.upgrade?.toLowerCase() !== PROTOCOL) {
    throw errors.FST_RELAY_ANSWER(`a 101 with "Upgrade: ${shown(headers.upgrade)}"`)
  }
  const answered = headers['spanza-framing']
  if (plan.framings === 'raw') return
  if (answered === undefined) throw errors.FST_RELAY_ANSWER('a proxy removed Spanza-Framing, or the server is older')
  const chosen = plan.framings.find((name) => name === String(answered).toLowerCase())
  if (chosen === undefined) throw errors.FST_RELAY_ANSWER(`it chose the framing "${shown(answered)}", which was not asked for`)
  return {
    framing: framingTable[chosen],
    maxPacketSize: { send: readMaxPacket(headers['spanza-max-packet']), receive: plan.maxPacketSize }
  }
}

function readMaxPacket (value: string | string[] | undefined): number {
  if (value === undefined) return MAX_DATAGRAM_SIZE
  const bytes = /^\d{1,5}$/.test(String(value)) ? Number(value) : 0
  if (bytes < 1 || bytes > MAX_DATAGRAM_SIZE) throw errors.FST_RELAY_ANSWER(`"Spanza-Max-Packet: ${shown(value)}"`)
  return bytes
}

function shown (value: string | string[] | undefined): string {
  return printable(String(value)).slice(0, 100)
}

function connectError (text: string, cause?: unknown): Error {
  const error = errors.FST_RELAY_CONNECT(text)
  if (cause !== undefined) error.cause = cause
  return error
}
