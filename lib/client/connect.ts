import { request as httpRequest, type IncomingHttpHeaders, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { errors } from '../errors.ts'
import type { Framing } from '../framing/framing.ts'
import { printable } from '../printable.ts'
import { len16 } from '../framing/len16.ts'
import { wg } from '../framing/wg.ts'
import { MAX_DATAGRAM_SIZE } from '../wireguard.ts'
import { connectError, describeError } from './describe-error.ts'
import { EarlyTunnel } from './early-tunnel.ts'
import { planConnect, type ConnectOptions, type ConnectPlan, type DatagramFraming, type HttpUpgradeOptions, type RawConnectOptions } from './options.ts'
import { refusalOf, REFUSAL_BODY_LIMIT } from './refusal.ts'
import { RelayConnection } from './relay-connection.ts'
import { openTransport, sendProxyHeader } from './transport.ts'

const framingTable: Record<DatagramFraming, Framing> = { wg, len16 }

/**
 * Opens a tunnel to a relay. With `framings: 'raw'`, the default under `protocol: 'websocket'`, it carries bytes and is
 * a plain `Duplex`, half-open: the caller ends its side. That one has an `error` listener that does nothing, so that an
 * early reset does not end the process; add one to hear of errors.
 *
 * With `earlyData` it is there as soon as the request has been written, and takes more to write, with the connection's
 * own backpressure. Whatever goes wrong from then on, a refusal too, destroys it with the error that the promise would
 * have been rejected with otherwise; early data may then have reached the server or not. Reading begins behind the
 * 101, and an `end()` waits for it.
 *
 * @param url an `http:` or `https:` URL, without user name and password; for `protocol: 'websocket'` also `ws:`, `wss:`
 * @throws FST_RELAY_CLIENT_OPTION an option cannot be used
 * @throws FST_RELAY_CONNECT no answer came: the network, TLS, or no time left; see `cause`
 * @throws FST_RELAY_REFUSED the relay said no; the error is a `RelayRefusedError`
 * @throws FST_RELAY_ANSWER the answer is no relay's, or a proxy removed parts of it
 * @throws the reason of `signal`
 */
export function connect (url: string | URL, options: RawConnectOptions | HttpUpgradeOptions): Promise<Duplex>
export function connect (url: string | URL, options?: ConnectOptions): Promise<RelayConnection>
export async function connect (url: string | URL, options: ConnectOptions | RawConnectOptions | HttpUpgradeOptions = {}): Promise<RelayConnection | Duplex> {
  const plan = planConnect(url, options)
  plan.signal?.throwIfAborted()
  return await handshake(plan, openTransport(plan))
}

/** Sends the request on the transport and waits for the answer. Whatever fails destroys the transport. */
function handshake (plan: ConnectPlan, transport: Duplex): Promise<RelayConnection | Duplex> {
  return new Promise((resolve, reject) => {
    let early: EarlyTunnel | undefined
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
      early?.destroy(error as Error)
      transport.destroy()
      reject(error)
    }

    const beginEarly = () => {
      if (plan.earlyData === undefined || early !== undefined) return
      early = new EarlyTunnel(transport)
      early.on('error', () => {})
      if (plan.earlyData.length > 0) early.write(plan.earlyData)
      resolve(early)
    }

    const ask = () => {
      const request = httpRequest({
        createConnection: () => transport,
        path: plan.path,
        // Copied, as http wants lists that it may change.
        headers: Object.fromEntries(Object.entries(plan.headers).map(([name, value]) => [name, typeof value === 'string' ? value : [...value]])),
        setHost: false
      })
      request.on('error', (error) => {
        if (refusal !== undefined) return refusal()
        // Of a transport that failed at once, http says only that it hung up.
        const cause = transport.errored ?? error
        fail(connectError(describeError(cause), cause))
      })
      request.on('response', (response) => {
        if (response.statusCode === 101) fail(errors.FST_RELAY_ANSWER(faultOf101(plan, response.headers)!))
        else refusal = readRefusal(response, fail)
      })
      request.on('upgrade', (response, tunnel, head) => {
        // All in the turn of the answer: what comes next on the tunnel finds its listeners in place.
        try {
          const settings = readAnswer(plan, response.headers)
          if (head.length > 0) tunnel.unshift(head)
          if (settings === undefined) {
            tunnel.allowHalfOpen = true
            beginEarly() // if the transport has answered before it was done with the request
            early?.open()
            resolve(tunnel)
          } else {
            resolve(new RelayConnection(tunnel, { ...plan, ...settings }))
          }
          settle()
        } catch (error) {
          fail(error)
        }
      })
      request.on('finish', beginEarly)
      request.end()
    }

    if (plan.proxyProtocol === undefined) return ask()
    const onError = (error: Error) => fail(connectError(describeError(error), error))
    transport.once('error', onError)
    transport.once('connect', () => {
      transport.off('error', onError)
      transport = sendProxyHeader(plan, transport as Socket)
      ask()
    })
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
  const fault = faultOf101(plan, headers)
  if (fault !== undefined) throw errors.FST_RELAY_ANSWER(fault)
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

/** What keeps a 101 from being the answer to this request. A proxy may have added to `Connection`. */
function faultOf101 ({ protocol }: ConnectPlan, { upgrade, connection = '' }: IncomingHttpHeaders): string | undefined {
  if (upgrade === undefined) return `a 101 without "Upgrade: ${protocol}"`
  if (upgrade.toLowerCase() !== protocol) return `a 101 with "Upgrade: ${shown(upgrade)}"`
  const hasUpgrade = connection.split(',').some((token) => token.trim().toLowerCase() === 'upgrade')
  return hasUpgrade ? undefined : 'a 101 without "Connection: Upgrade"'
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
