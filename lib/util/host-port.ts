import { BlockList, isIP } from 'node:net'

/** A host and a port, as in `127.0.0.1:51820` or `[::1]:51820`. */
export interface HostPort {
  host: string
  port: number
}

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Returns true for an IP address in 127.0.0.0/8, and for ::1. */
export function isLoopback (address: string): boolean {
  return loopback.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

/** Parses `host:port`, with IPv6 addresses in brackets. The host may be a name. Returns undefined for anything else. */
export function parseHostPort (value: unknown): HostPort | undefined {
  if (typeof value !== 'string') return
  const match = /^(?:\[([\da-fA-F:.]+)\]|([\w.-]+)):(\d{1,5})$/.exec(value)
  if (match === null) return
  const [, bracketed, plain, digits] = match
  const port = Number(digits)
  if (port > 65535 || (bracketed !== undefined && isIP(bracketed) !== 6)) return
  return { host: (bracketed ?? plain)!, port }
}

/** Returns `host:port`, with an IPv6 address in brackets. */
export function formatHostPort ({ host, port }: HostPort): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`
}
