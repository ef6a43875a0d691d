import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** The destination that a proxy would connect to. */
export interface Destination {
  secure: boolean
  /** A name, or an address without brackets. */
  hostname: string
  port: number
}

/** A proxy that the environment names. */
export interface NamedProxy {
  /** The environment variable. */
  name: string
  value: string
}

/**
 * The proxy that the environment names for a destination: HTTPS_PROXY for `https:`, HTTP_PROXY for `http:`, ALL_PROXY for
 * both; undefined where NO_PROXY lists the destination. As with curl, lower-case names come first and empty ones count as
 * not set.
 */
export function proxyFromEnvironment (destination: Destination, env: NodeJS.ProcessEnv): NamedProxy | undefined {
  const names = [destination.secure ? 'https_proxy' : 'http_proxy', 'all_proxy'].flatMap((name) => [name, name.toUpperCase()])
  const name = names.find((each) => isGiven(env[each]))
  if (name === undefined) return
  const exceptions = isGiven(env['no_proxy']) ? env['no_proxy'] : env['NO_PROXY']
  if (exceptions !== undefined && isException(destination, exceptions)) return
  return { name, value: env[name]! }
}

/**
 * Whether a list as in NO_PROXY has the destination: `*` for all, else separated by commas or spaces. `example.com`,
 * `.example.com` and `*.example.com` all stand for that name and every name below it; `192.0.2.7`, `192.0.2.0/24` and
 * `2001:db8::/32` for addresses. A port limits an entry, as in `example.com:8443` or `[::1]:8443`. Names are not looked up.
 */
function isException ({ hostname, port }: Destination, list: string): boolean {
  const name = hostname.toLowerCase().replace(/\.$/, '')
  return list.toLowerCase().split(/[\s,]+/).some((entry) => {
    if (entry === '') return false
    const [, bracketed, plain, digits] = /^(?:\[(.+)\]|([^:]+)):(\d+)$/.exec(entry) ?? []
    if (digits !== undefined && Number(digits) !== port) return false
    const host = bracketed ?? plain ?? entry.replace(/^\[(.+)\]$/, '$1')
    if (host === '*') return true
    if (isIP(name) !== 0) return coversAddress(host, name)
    const suffix = host.replace(/^\*?\./, '').replace(/\.$/, '')
    return name === suffix || name.endsWith(`.${suffix}`)
  })
}

/** Whether an address, or a range in CIDR notation, covers an address. */
function coversAddress (range: string, address: string): boolean {
  const candidate = ipaddr.process(address)
  if (ipaddr.isValidCIDR(range)) {
    const [network, bits] = ipaddr.parseCIDR(range)
    return network.kind() === candidate.kind() && candidate.match(network, bits)
  }
  return isIP(range) !== 0 && ipaddr.process(range).toString() === candidate.toString()
}

function isGiven (value: string | undefined): boolean {
  return value !== undefined && value.trim() !== ''
}
