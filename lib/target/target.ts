import { parseHostPort } from '../util/host-port.ts'

/** The server that a relay route's tunnels go to instead of the hub. */
export type Target =
  { protocol: 'udp' | 'tcp', host: string, port: number } |
  { protocol: 'unix', path: string }

const networkPattern = /^(udp|tcp):\/\/(.+)$/
const unixPattern = /^unix:(?:\/\/)?(\/[^/].*)$/

/**
 * Parses `udp://host:port`, `tcp://host:port` (IPv6 addresses in brackets) or `unix:/path`.
 * @returns undefined if `value` is none of these
 */
export function parseTarget (value: unknown): Target | undefined {
  if (typeof value !== 'string') return
  const path = unixPattern.exec(value)?.[1]
  if (path !== undefined) return { protocol: 'unix', path }
  const [, protocol, address] = networkPattern.exec(value) ?? []
  const hostPort = parseHostPort(address)
  if (hostPort === undefined || hostPort.port === 0) return
  return { protocol: protocol as 'udp' | 'tcp', ...hostPort }
}
