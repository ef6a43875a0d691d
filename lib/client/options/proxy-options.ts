import type { TransportOptions } from './connect-options.ts'
import { clientOptionError } from './client-option-error.ts'
import { proxyFromEnvironment, type Destination } from './proxy-environment.ts'

/** A proxy, checked. */
export interface ProxyPlan {
  readonly secure: boolean
  /** A name, or an address without brackets. */
  readonly hostname: string
  readonly port: number
  /** The value of `Proxy-Authorization`. */
  readonly authorization: string | undefined
  /** Its URL without credentials, for messages. */
  readonly name: string
}

const EXPECTED = "an http: or https: URL, 'env' or false"

/**
 * Checks the option `proxy`; undefined if the relay is reached without one.
 * @throws FST_RELAY_CLIENT_OPTION naming the option, or the environment variable
 */
export function checkProxy ({ proxy, createConnection }: TransportOptions, destination: Destination): ProxyPlan | undefined {
  if (proxy === undefined || proxy === false) return
  // The value is never shown: it may hold a password.
  if (createConnection !== undefined) throw clientOptionError('proxy', 'absent with createConnection, which connects itself', 'given')
  if (proxy === 'env') {
    const found = proxyFromEnvironment(destination, process.env)
    return found === undefined ? undefined : parseProxy(found.value.trim(), `proxy (${found.name} in the environment)`, 'an http: or https: URL')
  }
  if (typeof proxy !== 'string' && !(proxy instanceof URL)) throw clientOptionError('proxy', EXPECTED, typeof proxy)
  return parseProxy(String(proxy), 'proxy', EXPECTED)
}

function parseProxy (value: string, option: string, expected: string): ProxyPlan {
  // As with curl, a proxy without a scheme is an http: proxy.
  const text = value.includes('://') ? value : `http://${value}`
  let url
  try {
    url = new URL(text)
  } catch {
    throw clientOptionError(option, expected, 'something else')
  }
  const { protocol, hostname, username, password } = url
  const secure = protocol === 'https:'
  if (!secure && protocol !== 'http:') throw clientOptionError(option, `${expected}: other proxies, SOCKS among them, are not spoken`, `${protocol}//…`)
  let authorization
  if (username !== '' || password !== '') {
    try {
      authorization = `Basic ${Buffer.from(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`).toString('base64')}`
    } catch {
      throw clientOptionError(option, 'one whose user name and password are percent-encoded', 'one with a % that stands for nothing')
    }
  }
  return {
    secure,
    hostname: hostname.startsWith('[') ? hostname.slice(1, -1) : hostname,
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    authorization,
    name: url.origin
  }
}
