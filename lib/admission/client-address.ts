import { isIPv4, isIPv6 } from 'node:net'
import ipaddr from 'ipaddr.js'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** Prefix of an IPv4 client's address on a socket that listens on IPv6. */
const V4_MAPPED = '::ffff:'

/**
 * Returns the client's address in canonical form: without port, brackets and quotes. An IPv4-mapped IPv6 address becomes IPv4.
 * @param ip `request.ip`: with `trustProxy`, any text that a trusted proxy sent
 * @returns the address, or undefined on a unix socket, which has none
 * @throws FST_RELAY_CLIENT_ADDRESS if `ip` is not an address
 */
export function clientAddress (ip: string | undefined): string | undefined {
  if (ip === undefined || ip === '') return undefined
  const address = canonicalAddress(ip)
  if (address === undefined) throw new errors.FST_RELAY_CLIENT_ADDRESS(printable(ip))
  return address
}

/** Like `clientAddress`, but returns undefined if `ip` is not an address. */
export function canonicalAddress (ip: string | undefined): string | undefined {
  if (ip === undefined) return undefined
  // The fast path for nearly every address. `isIPv4` accepts only the canonical spelling.
  const v4 = ip.startsWith(V4_MAPPED) ? ip.slice(V4_MAPPED.length) : ip
  if (isIPv4(v4)) return v4
  if (isIPv6(ip)) return canonicalV6(ip)
  const { quoted = ip } = /^"(?<quoted>.*)"$/.exec(ip)?.groups ?? {}
  const { v4: node = '', v6 = '' } = nodeName.exec(quoted)?.groups ?? {}
  if (isIPv4(node)) return node
  return isIPv6(v6) ? canonicalV6(v6) : undefined
}

/**
 * An address with an optional port, as Azure's gateways and IIS send it in X-Forwarded-For. The form is the one of `Forwarded`
 * (RFC 7239, section 6): IPv6 in brackets, and quotes around a value with a colon. Words such as `unknown` do not match.
 */
const nodeName = /^(?:(?<v4>[\d.]+)|\[(?<v6>[^\]]+)\])(?::\d{1,5})?$/

/** Drops the zone of a link-local address: it names an interface of this host. */
function canonicalV6 (ip: string): string {
  const [address] = ip.split('%', 1)
  return ipaddr.process(address!).toString()
}

/**
 * Returns the key for limits per client: the IPv4 address, or the /64 of an IPv6 address, because one client has many of those.
 * @param address an address from `clientAddress`
 */
export function limitKey (address: string): string {
  if (isIPv4(address)) return address
  return ipaddr.IPv6.parse(address).parts.slice(0, 4).map((part) => part.toString(16)).join(':') + '::/64'
}

/**
 * Detects a proxy that the app does not trust: every tunnel comes from one address, and every request has a forwarding header.
 * Limits per client then apply to all clients together.
 */
export class UntrustedProxyCheck {
  #address: string | undefined
  #tunnels = 0
  #done = false

  /** @returns true once, at the tenth such tunnel, when the operator should be warned */
  seems (address: string | undefined, forwarded: boolean): boolean {
    if (this.#done) return false
    this.#address ??= address
    if (!forwarded || address === undefined || address !== this.#address) {
      this.#done = true
      return false
    }
    this.#done = ++this.#tunnels === 10
    return this.#done
  }
}
