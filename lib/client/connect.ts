import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { errors } from '../errors.ts'
import { rememberAddress } from './transport/address-memory.ts'
import { headerText } from './header-text.ts'
import { connectError, markCut, noAnswerError } from './connect-error.ts'
import { EarlyTunnel } from './transport/early-tunnel.ts'
import { connectHttp2 } from './transport/http2-connect.ts'
import { openTunnel } from './transport/open-tunnel.ts'
import { planConnect, type ConnectPlan } from './options/connect-plan.ts'
import type { ConnectOptions, HttpUpgradeOptions, RawConnectOptions } from './options/connect-options.ts'
import { readRefusal } from './refusal.ts'
import type { RelayConnection } from './connection/relay-connection.ts'
import { openTransport } from './transport/transport.ts'
import { describeFault } from './transport/transport-fault.ts'

/**
 * Opens a tunnel to a relay. With `framings: 'raw'`, the default with `keyless`, it carries bytes and is a plain `Duplex`. Unless
 * it is a WebSocket, it can be half-open: the caller ends its side. It has an `error` listener that does nothing, so that an
 * early reset does not end the process. Add your own to learn of errors.
 *
 * With `earlyData` the promise resolves as soon as the request is written, and the tunnel takes further writes with the
 * connection's own backpressure. Any failure after that, a refusal too, destroys the tunnel with the error that the promise
 * would have been rejected with. Early data may have reached the server then. Reading begins after the 101, and `end()` waits
 * for it.
 *
 * With `httpVersion: 2` the tunnel is a stream of an HTTP/2 connection, which tunnels share. A reset of that stream by the
 * relay destroys the tunnel with FST_RELAY_ABORTED, and `destroy()` resets it with CANCEL.
 *
 * @param url an `http:` or `https:` URL, without user name and password; for `protocol: 'websocket'` also `ws:`, `wss:`
 * @throws FST_RELAY_CLIENT_OPTION an option is invalid
 * @throws FST_RELAY_CONNECT no answer came: a network or TLS error, or a timeout; see `cause`
 * @throws FST_RELAY_PROXY the proxy cannot be reached, refuses, or wants credentials
 * @throws FST_RELAY_REFUSED the relay refused; the error is a `RelayRefusedError`
 * @throws FST_RELAY_ANSWER the answer does not come from a relay, or a proxy removed parts of it
 * @throws FST_RELAY_HTTP2 with `httpVersion: 2`: the server does not speak HTTP/2, or not its extended CONNECT
 * @throws the reason of `signal`
 */
export function connect (url: string | URL, options: RawConnectOptions | HttpUpgradeOptions): Promise<Duplex>
export function connect (url: string | URL, options?: ConnectOptions): Promise<RelayConnection>
export async function connect (url: string | URL, options: ConnectOptions | RawConnectOptions | HttpUpgradeOptions = {}): Promise<RelayConnection | Duplex> {
  const plan = planConnect(url, options)
  plan.signal?.throwIfAborted()
  return plan.httpVersion === 2 ? await connectHttp2(plan) : await handshake(plan)
}

/** Opens a transport, sends the request on it and waits for the answer. Any failure destroys the transport. */
function handshake (plan: ConnectPlan): Promise<RelayConnection | Duplex> {
  return new Promise((resolve, reject) => {
    const opening = new AbortController()
    let transport: Duplex | undefined
    let early: EarlyTunnel | undefined
    let refusal: (() => void) | undefined
    let isSent = false
    const timer = setTimeout(() => {
      if (refusal !== undefined) refusal()
      else fail(noAnswerError(plan, transport !== undefined))
    }, plan.handshakeTimeout)
    const onAbort = () => fail(plan.signal!.reason)
    plan.signal?.addEventListener('abort', onAbort)

    const settle = () => {
      clearTimeout(timer)
      plan.signal?.removeEventListener('abort', onAbort)
    }
    const fail = (error: unknown) => {
      settle()
      opening.abort()
      early?.destroy(error as Error)
      transport?.destroy()
      reject(error)
    }

    const beginEarly = (transport: Duplex) => {
      if (plan.earlyData === undefined || early !== undefined) return
      early = new EarlyTunnel(transport)
      early.on('error', () => {})
      if (plan.earlyData.length > 0) early.write(plan.earlyData)
      resolve(early)
    }

    const ask = (transport: Duplex) => {
      const request = httpRequest({
        createConnection: () => transport,
        path: plan.path,
        // Copied, because http may change the lists.
        headers: Object.fromEntries(Object.entries(plan.headers).map(([name, value]) => [name, typeof value === 'string' ? value : [...value]])),
        setHost: false
      })
      request.on('error', (error) => {
        if (refusal !== undefined) return refusal()
        // If the transport failed at once, the error of http says only that it hung up.
        const cause = transport.errored ?? error
        const failure = connectError(describeFault(cause, plan, transport), cause)
        fail(isSent ? markCut(failure) : failure)
      })
      request.on('response', (response) => {
        if (response.statusCode === 101) fail(errors.FST_RELAY_ANSWER(faultOf101(plan, response.headers)!))
        else refusal = readRefusal(response, response, fail)
      })
      request.on('upgrade', (response, tunnel, head) => {
        // All in the same turn as the answer, so that the next bytes on the tunnel find its listeners in place.
        try {
          const fault = faultOf101(plan, response.headers)
          if (fault !== undefined) throw errors.FST_RELAY_ANSWER(fault)
          if (head.length > 0) tunnel.unshift(head)
          const opened = openTunnel(plan, response.headers, tunnel)
          if (opened === tunnel) {
            tunnel.allowHalfOpen = true
            beginEarly(transport) // the answer may come before the request is finished
            early?.open()
          }
          rememberAddress(transport)
          resolve(opened)
          settle()
        } catch (error) {
          fail(error)
        }
      })
      request.on('finish', () => {
        isSent = true
        beginEarly(transport)
      })
      request.end()
    }

    openTransport(plan, opening.signal).then((opened) => {
      if (opening.signal.aborted) return opened.destroy()
      transport = opened
      ask(opened)
    }).catch(fail)
  })
}

/** Why a 101 is not an answer to this request, if it is not. A proxy may have added to `Connection`. */
function faultOf101 ({ protocol }: ConnectPlan, { upgrade, connection = '' }: IncomingHttpHeaders): string | undefined {
  if (upgrade === undefined) return `a 101 without "Upgrade: ${protocol}"`
  if (upgrade.toLowerCase() !== protocol) return `a 101 with "Upgrade: ${headerText(upgrade)}"`
  const hasUpgrade = connection.split(',').some((token) => token.trim().toLowerCase() === 'upgrade')
  return hasUpgrade ? undefined : 'a 101 without "Connection: Upgrade"'
}
