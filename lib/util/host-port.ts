import { BlockList, isIP } from 'node:net'

/** A host and a port, as in `127.0.0.1:51820` or `[::1]:51820`. */
export interface HostPort {
  host: string
  port: number
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Whether an IP address is one of the machine itself. */
export function isLoopback (address: string): boolean {
  return loopback.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

/** Reads `host:port`, IPv6 addresses in brackets; undefined if it is none. The host may be a name. */
export function parseHostPort (value: unknown): HostPort | undefined {
  if (typeof value !== 'string') return
  const match = /^(?:\[([\da-fA-F:.]+)\]|([\w.-]+)):(\d{1,5})$/.exec(value)
  if (match === null) return
  const [, bracketed, plain, digits] = match
  const port = Number(digits)
  if (port > 65535 || (bracketed !== undefined && isIP(bracketed) !== 6)) return
  return { host: (bracketed ?? plain)!, port }
}

/** The other way round. */
export function formatHostPort ({ host, port }: HostPort): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}
