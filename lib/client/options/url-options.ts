import { isIP } from 'node:net'
import type { ClientProtocol } from './connect-options.ts'
import { clientOptionError } from './client-option-error.ts'

/** Checks the relay's URL, and the names that take the place of the one in it. */

export function checkUrl (value: string | URL, protocol: ClientProtocol): URL {
  const schemes = protocol === 'websocket' ? ['http:', 'https:', 'ws:', 'wss:'] : ['http:', 'https:']
  const expected = protocol === 'websocket' ? 'an http:, https:, ws: or wss: URL' : 'an http: or https: URL'
  let url
  try {
    url = new URL(value)
  } catch {
    throw clientOptionError('url', expected, value)
  }
  if (url.username !== '' || url.password !== '') {
    url.username = url.password = ''
    throw clientOptionError('url', 'without user name and password (give a token or headers)', `${url.href}, which had them`)
  }
  if (!schemes.includes(url.protocol)) throw clientOptionError('url', expected, url.href)
  return url
}

export function checkHost (value: unknown): string {
  if (typeof value === 'string' && /^[^\s/\\?#@]+$/.test(value) && URL.canParse(`http://${value}`)) return value
  throw clientOptionError('host', 'a host name with or without a port', value)
}

/**
 * The name for TLS; undefined where there is only an address.
 * @param hostHeader what `Host` says
 * @param hostname the URL's host, without brackets
 */
export function checkServername (value: unknown, hostHeader: string, hostname: string): string | undefined {
  if (value === undefined) {
    const fromHost = withoutBrackets(new URL(`http://${hostHeader}`).hostname)
    // SNI takes names only. With an address, the certificate is checked against the address connected to.
    if (isIP(fromHost) === 0) return fromHost
    return isIP(hostname) === 0 ? hostname : undefined
  }
  if (typeof value === 'string' && /^[\w.-]+$/.test(value) && isIP(value) === 0) return value
  throw clientOptionError('servername', 'a host name, without a port and no address', value)
}

/** A URL's `hostname`, in which an IPv6 address has brackets. */
export function withoutBrackets (hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}
