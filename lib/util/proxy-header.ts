import { isIPv4, isIPv6 } from 'node:net'
import ipaddr from 'ipaddr.js'

/**
 * The PROXY protocol, versions 1 and 2, as specified in HAProxy's proxy-protocol.txt. A proxy sends a header before the first
 * byte of a connection. The header names the endpoints of the connection that the proxy forwards.
 */

export type ProxyProtocolVersion = 1 | 2

/** One end of a connection. */
export interface Endpoint {
  /** An IPv4 or IPv6 address. */
  address: string
  /** 0 if unknown. */
  port: number
}

/** The connection that a proxy forwards. */
export interface ProxiedConnection {
  source: Endpoint
  destination: Endpoint
}

/** The result of decoding the first bytes of a connection. */
export type DecodedProxyHeader =
  /** The bytes may be the beginning of a header. */
  | { kind: 'incomplete' }
  /** The bytes are not the beginning of a header. */
  | { kind: 'absent' }
  /** The bytes begin like a header, but are invalid. */
  | { kind: 'malformed', reason: string }
  /**
   * A header of `length` bytes. `connection` is undefined for LOCAL, UNKNOWN and addresses other than IP. In that case, use the
   * endpoints of the socket.
   */
  | { kind: 'header', length: number, connection: ProxiedConnection | undefined }

const V1_PREFIX = Buffer.from('PROXY ')
const V1_MAX_LENGTH = 107
const V1_LINE = /^PROXY TCP([46]) ([^ ]+) ([^ ]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4})$/
const V1_UNKNOWN = /^PROXY UNKNOWN(?: .*)?$/

const V2_SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const V2_VERSION = 0x20
const V2_LOCAL = 0
const V2_PROXY = 1
const V2_UNSPEC = 0
const V2_STREAM = 1
const V2_DGRAM = 2
const V2_FIXED_LENGTH = 16
/** The maximum number of bytes after the fixed part. The length field allows 65535, but real TLVs are far shorter. */
const V2_MAX_REST = 4096

interface V2Family {
  /** The size of one address in bytes. */
  size: number
  /** The minimum size of both endpoints in bytes. */
  length: number
  isIp: boolean
}

const V2_INET = 1
const V2_INET6 = 2
const v2Families: Record<number, V2Family> = {
  [V2_UNSPEC]: { size: 0, length: 0, isIp: false },
  [V2_INET]: { size: 4, length: 12, isIp: true },
  [V2_INET6]: { size: 16, length: 36, isIp: true },
  3: { size: 108, length: 216, isIp: false }
}

/**
 * Encodes the header for a forwarded connection.
 * @param connection undefined for a connection without IP addresses. The header is then UNKNOWN (version 1) or LOCAL (version 2).
 */
export function encodeProxyHeader (version: ProxyProtocolVersion, connection: ProxiedConnection | undefined): Buffer {
  if (connection === undefined) return version === 1 ? Buffer.from('PROXY UNKNOWN\r\n') : v2Header(V2_LOCAL, V2_UNSPEC, [], [])
  const { source, destination } = connection
  const addresses = ofOneFamily([source, destination].map(({ address }) => withoutZone(address)))
  const isIPv4 = addresses[0]!.kind() === 'ipv4'
  if (version === 1) {
    return Buffer.from(`PROXY TCP${isIPv4 ? 4 : 6} ${addresses.join(' ')} ${source.port} ${destination.port}\r\n`)
  }
  const family = (isIPv4 ? V2_INET : V2_INET6) << 4 | V2_STREAM
  return v2Header(V2_PROXY, family, addresses.flatMap((address) => address.toByteArray()), [source.port, destination.port])
}

function v2Header (command: number, family: number, addresses: number[], ports: number[]): Buffer {
  const rest = addresses.length + 2 * ports.length
  const header = Buffer.alloc(V2_FIXED_LENGTH + rest)
  V2_SIGNATURE.copy(header)
  header[12] = V2_VERSION | command
  header[13] = family
  header.writeUInt16BE(rest, 14)
  header.set(addresses, V2_FIXED_LENGTH)
  for (const [i, port] of ports.entries()) header.writeUInt16BE(port, V2_FIXED_LENGTH + addresses.length + 2 * i)
  return header
}

/** Parses addresses into one family: IPv4 if all of them are IPv4, else IPv6 with IPv4 addresses mapped. */
function ofOneFamily (texts: string[]): Array<ipaddr.IPv4 | ipaddr.IPv6> {
  const addresses = texts.map((text) => ipaddr.process(text))
  if (addresses.every((address) => address.kind() === 'ipv4')) return addresses
  return addresses.map((address) => address instanceof ipaddr.IPv4 ? address.toIPv4MappedAddress() : address)
}

/** Drops the zone of a link-local address: it names an interface of this host. */
function withoutZone (address: string): string {
  return address.split('%', 1)[0]!
}

/**
 * Decodes a header at the beginning of a connection. Decoded addresses are in their shortest form. An IPv4-mapped address becomes
 * IPv4.
 * @param bytes all bytes received so far. Bytes after the header are ignored.
 */
export function decodeProxyHeader (bytes: Buffer): DecodedProxyHeader {
  if (startsAlike(bytes, V1_PREFIX)) return bytes.length < V1_PREFIX.length ? { kind: 'incomplete' } : decodeV1(bytes)
  if (startsAlike(bytes, V2_SIGNATURE)) return bytes.length < V2_FIXED_LENGTH ? { kind: 'incomplete' } : decodeV2(bytes)
  return { kind: 'absent' }
}

function startsAlike (bytes: Buffer, prefix: Buffer): boolean {
  const length = Math.min(bytes.length, prefix.length)
  return bytes.compare(prefix, 0, length, 0, length) === 0
}

function malformed (reason: string): DecodedProxyHeader {
  return { kind: 'malformed', reason }
}

function decodeV1 (bytes: Buffer): DecodedProxyHeader {
  const end = bytes.subarray(0, V1_MAX_LENGTH).indexOf('\r\n')
  if (end < 0) return bytes.length < V1_MAX_LENGTH ? { kind: 'incomplete' } : malformed(`a line of more than ${V1_MAX_LENGTH} bytes`)
  const line = bytes.toString('latin1', 0, end)
  const length = end + 2
  if (V1_UNKNOWN.test(line)) return { kind: 'header', length, connection: undefined }
  const [, family, source, destination, sourcePort, destinationPort] = V1_LINE.exec(line) ?? []
  if (family === undefined) return malformed('a line that is not "PROXY TCP4|TCP6|UNKNOWN source destination port port"')
  const isAddress = family === '4' ? isIPv4 : isUnzonedIPv6
  if (!isAddress(source!) || !isAddress(destination!)) return malformed(`an address that is not IPv${family}`)
  if (Number(sourcePort) > 65535 || Number(destinationPort) > 65535) return malformed('a port above 65535')
  const connection = { source: endpoint(source!, Number(sourcePort)), destination: endpoint(destination!, Number(destinationPort)) }
  return { kind: 'header', length, connection }
}

function isUnzonedIPv6 (address: string): boolean {
  return isIPv6(address) && !address.includes('%')
}

function decodeV2 (bytes: Buffer): DecodedProxyHeader {
  const command = bytes[12]! & 0x0f
  const rest = bytes.readUInt16BE(14)
  const length = V2_FIXED_LENGTH + rest
  if ((bytes[12]! & 0xf0) !== V2_VERSION) return malformed(`version ${bytes[12]! >> 4} behind the signature of version 2`)
  if (command !== V2_LOCAL && command !== V2_PROXY) return malformed(`command ${command}`)
  if (rest > V2_MAX_REST) return malformed(`${rest} bytes behind the fixed part, more than ${V2_MAX_REST}`)
  const transport = bytes[13]! & 0x0f
  const family = v2Families[bytes[13]! >> 4]
  // The specification says to ignore the family of a LOCAL header.
  if (command === V2_PROXY) {
    if (family === undefined || transport > V2_DGRAM) return malformed(`family and transport 0x${bytes[13]!.toString(16).padStart(2, '0')}`)
    if (rest < family.length) return malformed(`${rest} bytes for addresses of ${family.length}`)
  }
  if (bytes.length < length) return { kind: 'incomplete' }
  const hasAddresses = command === V2_PROXY && family!.isIp && transport !== V2_UNSPEC
  return { kind: 'header', length, connection: hasAddresses ? readConnection(bytes, family!.size) : undefined }
}

function readConnection (bytes: Buffer, size: number): ProxiedConnection {
  const read = (index: number): Endpoint => {
    const start = V2_FIXED_LENGTH + index * size
    const address = ipaddr.fromByteArray([...bytes.subarray(start, start + size)])
    return endpoint(address.toString(), bytes.readUInt16BE(V2_FIXED_LENGTH + 2 * size + 2 * index))
  }
  return { source: read(0), destination: read(1) }
}

function endpoint (address: string, port: number): Endpoint {
  return { address: ipaddr.process(address).toString(), port }
}
