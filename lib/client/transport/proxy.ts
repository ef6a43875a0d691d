import { request as httpRequest, STATUS_CODES, type IncomingMessage } from 'node:http'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { errors } from '../../errors.ts'
import { formatHostPort } from '../../util/host-port.ts'
import { headerText } from '../header-text.ts'
import { describeError } from '../describe-error.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'
import type { ProxyPlan } from '../options/proxy-options.ts'
import { guarded, tcpOptions } from './client-tcp.ts'

/**
 * Connects to the relay through a proxy, by CONNECT (RFC 9110, section 9.3.6).
 * @param signal ends the attempt; the promise then rejects with its reason
 * @returns a connection with the relay at the other end
 * @throws FST_RELAY_PROXY the proxy cannot be reached, or refuses
 */
export function connectThroughProxy (plan: ConnectPlan, proxy: ProxyPlan, signal: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const target = formatHostPort({ host: plan.hostname, port: plan.port })
    const socket = guarded(openProxy(plan, proxy))
    let problem = 'cannot be reached'
    socket.once('connect', () => { problem = proxy.secure ? 'fails in the TLS handshake' : 'gave no answer' })
    socket.once('secureConnect', () => { problem = 'gave no answer' })

    const settle = () => signal.removeEventListener('abort', onAbort)
    const fail = (error: unknown) => {
      settle()
      socket.destroy()
      reject(error)
    }
    const onAbort = () => fail(signal.reason)
    signal.addEventListener('abort', onAbort)

    const request = httpRequest({
      createConnection: () => socket,
      method: 'CONNECT',
      path: target,
      headers: { Host: target, ...(proxy.authorization === undefined ? {} : { 'Proxy-Authorization': proxy.authorization }) },
      setHost: false
    })
    request.on('error', (error) => {
      const cause = socket.errored ?? error
      fail(proxyError(proxy, `it ${problem}: ${describeError(cause)}`, cause))
    })
    request.on('connect', (response, _socket, head) => {
      const { statusCode = 0 } = response
      if (statusCode < 200 || statusCode > 299) return fail(proxyError(proxy, refusalText(response, proxy, plan, target)))
      settle()
      if (head.length > 0) socket.unshift(head)
      resolve(socket)
    })
    request.end()
  })
}

/** The error for a proxy that did not connect. Its name is shown without credentials. */
export function proxyError (proxy: ProxyPlan, text: string, cause?: unknown): Error {
  const error = errors.FST_RELAY_PROXY(proxy.name, text)
  if (cause !== undefined) error.cause = cause
  return error
}

function openProxy (plan: ConnectPlan, { secure, hostname, port }: ProxyPlan): Socket {
  const options = tcpOptions(plan, hostname, port)
  if (!secure) return connectTcp(options)
  const name = isIP(hostname) === 0 ? { servername: hostname } : {}
  return connectTls({ ...plan.proxyTls, ...options, ...name, ALPNProtocols: ['http/1.1'] })
}

function refusalText ({ statusCode = 0, statusMessage, headers }: IncomingMessage, proxy: ProxyPlan, plan: ConnectPlan, target: string): string {
  if (statusCode === 407) return credentialsText(headerText(headers['proxy-authenticate'] ?? 'without Proxy-Authenticate'), proxy)
  const status = `${statusCode} ${headerText(statusMessage || STATUS_CODES[statusCode] || '')}`.trim()
  if (statusCode === 502 || statusCode === 503 || statusCode === 504) return `it could not connect to ${target} (${status})`
  const hint = plan.port === 443 ? '' : '; many proxies allow port 443 only'
  return `it refused CONNECT to ${target} (${status})${hint}`
}

function credentialsText (challenge: string, { authorization }: ProxyPlan): string {
  if (!/(?:^|[\s,])basic(?:$|[\s,])/i.test(challenge)) {
    return `it wants credentials (407, ${challenge}), and only Basic is spoken here: ` +
      'a proxy on this machine that speaks its scheme, such as px or cntlm, can stand between'
  }
  return authorization === undefined
    ? `it wants credentials (407, ${challenge}): put them into the proxy's URL, as in http://user:password@host:port`
    : `it does not accept the user name and password in its URL (407, ${challenge})`
}
