import { isIPv4, isIPv6 } from 'node:net'
import ipaddr from 'ipaddr.js'
import { errors } from '../errors.ts'
import { printable } from '../util/printable.ts'

/** How a socket that listens on IPv6 gives the address of an IPv4 client. */
const V4_MAPPED = '::ffff:'

/**
 * The client's address as Fastify's `trustProxy` gives it, without a port, brackets and quotes; IPv4-mapped IPv6 addresses as
 * IPv4.
 * @param ip `request.ip`, which may be anything that a trusted proxy has sent
 * @returns undefined on a unix socket, which has no addresses
 * @throws FST_RELAY_CLIENT_ADDRESS when it is not an address
 */
export function clientAddress (ip: string | undefined): string | undefined {
  if (ip === undefined || ip === '') return undefined
  const address = canonicalAddress(ip)
  if (address === undefined) throw new errors.FST_RELAY_CLIENT_ADDRESS(printable(ip))
  return address
}

/** The same for what need not be an address: undefined then. */
export function canonicalAddress (ip: string | undefined): string | undefined {
  if (ip === undefined) return undefined
  // As nearly every address comes. Node takes no other spelling of IPv4 than this one.
  const v4 = ip.startsWith(V4_MAPPED) ? ip.slice(V4_MAPPED.length) : ip
  if (isIPv4(v4)) return v4
  if (isIPv6(ip)) return canonicalV6(ip)
  const { quoted = ip } = /^"(?<quoted>.*)"$/.exec(ip)?.groups ?? {}
  const { v4: node = '', v6 = '' } = nodeName.exec(quoted)?.groups ?? {}
  if (isIPv4(node)) return node
  return isIPv6(v6) ? canonicalV6(v6) : undefined
}

/**
 * How an address stands beside a port, as Azure's gateways and IIS send it in X-Forwarded-For. Its form is that of `Forwarded`
 * (RFC 7239, section 6): IPv6 in brackets, the whole in quotes where it has a colon. Words, as `unknown`, are no addresses.
 */
const nodeName = /^(?:(?<v4>[\d.]+)|\[(?<v6>[^\]]+)\])(?::\d{1,5})?$/

/** The zone of a link-local address names an interface of this host. */
function canonicalV6 (ip: string): string {
  const [address] = ip.split('%', 1)
  return ipaddr.process(address!).toString()
}

/** What limits per client go by, of an address as `clientAddress` gives it: an IPv4 address, or the /64 of an IPv6 address, of which one client has plenty. */
export function limitKey (address: string): string {
  if (isIPv4(address)) return address
  return ipaddr.IPv6.parse(address).parts.slice(0, 4).map((part) => part.toString(16)).join(':') + '::/64'
}

/**
 * Notices a proxy that the app does not trust: every tunnel comes from one address, and the requests say that they
 * were forwarded. Limits per client then meet all clients together.
 */
export class UntrustedProxyCheck {
  #address: string | undefined
  #tunnels = 0
  #done = false

  /** @returns true once, when the operator should be warned */
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
