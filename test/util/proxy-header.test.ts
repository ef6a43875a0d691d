import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import t from 'tap'
import { decodeProxyHeader, encodeProxyHeader, type DecodedProxyHeader, type ProxiedConnection } from '../../lib/util/proxy-header.ts'

const SIGNATURE = '0d0a0d0a000d0a515549540a'

/** A connection between two "address port". */
function connection (source: string, destination: string): ProxiedConnection {
  const endpoint = (text: string) => ({ address: text.split(' ')[0]!, port: Number(text.split(' ')[1]) })
  return { source: endpoint(source), destination: endpoint(destination) }
}

function v2 (hex: string): Buffer {
  return Buffer.from(SIGNATURE + hex.replaceAll(' ', ''), 'hex')
}

const ipv4 = connection('192.168.0.1 56324', '192.168.0.11 443')
const ipv6 = connection('2001:db8::1 65535', 'fe80::abcd 0')

const headers: Array<[title: string, bytes: Buffer, ProxiedConnection | undefined]> = [
  ['the example of the specification', Buffer.from('PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n'), ipv4],
  ['version 1 with IPv6', Buffer.from('PROXY TCP6 2001:db8::1 fe80::abcd 65535 0\r\n'), ipv6],
  ['version 1, unknown', Buffer.from('PROXY UNKNOWN\r\n'), undefined],
  ['version 2 with IPv4', v2('21 11 000c c0a80001 c0a8000b dc04 01bb'), ipv4],
  ['version 2 with IPv6', v2('21 21 0024 20010db8000000000000000000000001 fe80000000000000000000000000abcd ffff 0000'), ipv6],
  ['version 2, local', v2('20 00 0000'), undefined]
]

for (const [title, bytes, expected] of headers) {
  t.test(`${title}: is written and read`, async (t) => {
    t.same(encodeProxyHeader(bytes[0] === 0x50 ? 1 : 2, expected), bytes)
    t.same(decodeProxyHeader(bytes), { kind: 'header', length: bytes.length, connection: expected })
  })
}

t.test('a header is written in one family', async (t) => {
  const text = (source: string, destination: string) =>
    encodeProxyHeader(1, { source: { address: source, port: 1 }, destination: { address: destination, port: 2 } }).toString()
  t.equal(text('::ffff:192.0.2.1', '::ffff:10.0.0.1'), 'PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n', 'IPv4-mapped as IPv4')
  t.equal(text('::ffff:192.0.2.1', '10.0.0.1'), 'PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n')
  t.equal(text('192.0.2.1', '2001:db8::1'), 'PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n', 'IPv4 mapped into IPv6 beside IPv6')
  t.equal(text('2001:db8::1', '::ffff:192.0.2.1'), 'PROXY TCP6 2001:db8::1 ::ffff:c000:201 1 2\r\n')
  t.equal(text('fe80::1%eth0', 'fe80::2'), 'PROXY TCP6 fe80::1 fe80::2 1 2\r\n', 'without the zone')
})

const accepted: Array<[title: string, bytes: Buffer, source: string | undefined]> = [
  ['the longest line', Buffer.from(`PROXY UNKNOWN ${'x'.repeat(91)}\r\n`), undefined],
  ['the longest line with addresses', Buffer.from('PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n'), 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535'],
  ['UNKNOWN with addresses, which are not looked at', Buffer.from('PROXY UNKNOWN 1.2.3.4 garbage 99999\r\n'), undefined],
  ['capital digits, nothing shortened', Buffer.from('PROXY TCP6 2001:0DB8:0000:0000:0000:0000:0000:000A ::1 0 1\r\n'), '2001:db8::a 0'],
  ['an IPv4-mapped address', Buffer.from('PROXY TCP6 ::ffff:192.0.2.7 ::1 5 1\r\n'), '192.0.2.7 5'],
  ['an IPv4-mapped address in version 2', v2('21 21 0024 00000000000000000000ffffc0000207 fe80000000000000000000000000abcd 0005 0000'), '192.0.2.7 5'],
  ['TLVs', v2('21 11 0013 c0a80001 c0a8000b dc04 01bb 04 0004 deadbeef'), '192.168.0.1 56324'],
  ['a TLV that goes beyond the header', v2('21 11 000f c0a80001 c0a8000b dc04 01bb 04 ffff'), '192.168.0.1 56324'],
  ['the most TLVs', Buffer.concat([v2('21 11 1000 c0a80001 c0a8000b dc04 01bb'), Buffer.alloc(4084, 4)]), '192.168.0.1 56324'],
  ['UDP over IPv4', v2('21 12 000c c0a80001 c0a8000b dc04 01bb'), '192.168.0.1 56324'],
  ['LOCAL with addresses', v2('20 11 000c c0a80001 c0a8000b dc04 01bb'), undefined],
  ['LOCAL with a family that does not exist', v2('20 f9 0003 000000'), undefined],
  ['no family', v2('21 00 0003 000000'), undefined],
  ['no transport', v2('21 10 000c c0a80001 c0a8000b dc04 01bb'), undefined],
  ['a unix socket', Buffer.concat([v2('21 31 00d8'), Buffer.alloc(216, 'a')]), undefined]
]

for (const [title, bytes, source] of accepted) {
  t.test(`accepted: ${title}`, async (t) => {
    const decoded = decodeProxyHeader(Buffer.concat([bytes, Buffer.from('GET / HTTP/1.1\r\n\r\n')])) as DecodedProxyHeader & { kind: 'header' }
    t.match(decoded, { kind: 'header', length: bytes.length })
    t.equal(decoded.connection && `${decoded.connection.source.address} ${decoded.connection.source.port}`, source)
  })
}

const malformed: Array<[title: string, bytes: string | Buffer, reason: RegExp]> = [
  ['a protocol that does not exist', 'PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n', /^a line that is not/],
  ['small letters', 'PROXY tcp4 1.2.3.4 5.6.7.8 1 2\r\n', /^a line/],
  ['two spaces', 'PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n', /^a line/],
  ['a tab', 'PROXY TCP4\t1.2.3.4 5.6.7.8 1 2\r\n', /^a line/],
  ['a space before the end', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n', /^a line/],
  ['a part too few', 'PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n', /^a line/],
  ['a part too many', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n', /^a line/],
  ['no parts', 'PROXY \r\n', /^a line/],
  ['something behind UNKNOWN without a space', 'PROXY UNKNOWNS\r\n', /^a line/],
  ['a bare LF', 'PROXY UNKNOWN\nGET / HTTP/1.1\r\n', /^a line/],
  ['a bare CR', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rx\r\n', /^a line/],
  ['a leading zero in a port', 'PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n', /^a line/],
  ['a sign', 'PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n', /^a line/],
  ['a port that is too large', 'PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n', /^a port above 65535$/],
  ['a negative port', 'PROXY TCP4 1.2.3.4 5.6.7.8 -1 2\r\n', /^a line/],
  ['an octal address', 'PROXY TCP4 1.2.3.04 5.6.7.8 1 2\r\n', /^an address that is not IPv4$/],
  ['a short address', 'PROXY TCP4 127.1 5.6.7.8 1 2\r\n', /^an address/],
  ['a host name', 'PROXY TCP4 localhost 5.6.7.8 1 2\r\n', /^an address/],
  ['IPv6 called IPv4', 'PROXY TCP4 ::1 5.6.7.8 1 2\r\n', /^an address that is not IPv4$/],
  ['IPv4 called IPv6', 'PROXY TCP6 ::1 5.6.7.8 1 2\r\n', /^an address that is not IPv6$/],
  ['a zone', 'PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n', /^an address that is not IPv6$/],
  ['a line of 108 bytes', `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`, /^a line of more than 107 bytes$/],
  ['107 bytes that are no line yet', `PROXY UNKNOWN ${'x'.repeat(93)}`, /^a line of more than 107 bytes$/],
  ['version 1 in binary', v2('11 11 000c c0a80001 c0a8000b dc04 01bb'), /^version 1 behind/],
  ['version 3', v2('31 11 000c c0a80001 c0a8000b dc04 01bb'), /^version 3 behind/],
  ['a command that does not exist', v2('22 11 000c c0a80001 c0a8000b dc04 01bb'), /^command 2$/],
  ['a family that does not exist', v2('21 41 000c c0a80001 c0a8000b dc04 01bb'), /^family and transport 0x41$/],
  ['a transport that does not exist', v2('21 13 000c c0a80001 c0a8000b dc04 01bb'), /^family and transport 0x13$/],
  ['too short for IPv4', v2('21 11 000b c0a80001 c0a8000b dc04 01bb'), /^11 bytes for addresses of 12$/],
  ['too short for IPv6', v2('21 21 0023'), /^35 bytes for addresses of 36$/],
  ['too short for unix sockets', v2('21 31 00d7'), /^215 bytes for addresses of 216$/],
  ['too long', v2('21 11 1001'), /^4097 bytes behind the fixed part, more than 4096$/],
  ['too long, local', v2('20 00 ffff'), /^65535 bytes/]
]

for (const [title, bytes, reason] of malformed) {
  t.test(`malformed: ${title}`, async (t) => {
    t.match(decodeProxyHeader(Buffer.from(bytes)), { kind: 'malformed', reason })
  })
}

t.test('what is no header is known as soon as a byte differs', async (t) => {
  for (const text of ['GET / HTTP/1.1\r\n', 'PROPFIND / HTTP/1.1', 'PRI * HTTP/2.0', '\r\nGET /', '\r\n\r\n\0\r\nQUIT\r', 'PROXY\r', 'proxy ', '\x16\x03\x01']) {
    const header = text.startsWith('\r') ? Buffer.from(SIGNATURE, 'hex') : Buffer.from('PROXY ')
    const bytes = Buffer.from(text, 'latin1')
    const differs = bytes.findIndex((byte, i) => byte !== header[i])
    t.same(decodeProxyHeader(bytes.subarray(0, differs)), { kind: 'incomplete' }, `${JSON.stringify(text)} cut`)
    for (let end = differs + 1; end <= bytes.length; end++) t.same(decodeProxyHeader(bytes.subarray(0, end)), { kind: 'absent' })
  }
})

const address = fc.oneof(fc.ipV4(), fc.ipV6())
const endpoint = fc.record({ address, port: fc.nat(65535) })
const anyConnection = fc.option(fc.record({ source: endpoint, destination: endpoint }), { nil: undefined })
const anyHeader = fc.tuple(fc.constantFrom(1 as const, 2 as const), anyConnection)

function canonical (text: string): string {
  return ipaddr.process(text).toString()
}

t.test('any header that is written is read again, however it is cut, and nothing behind it', async (t) => {
  fc.assert(fc.property(anyHeader, fc.uint8Array({ maxLength: 50 }), ([version, connection], behind) => {
    const header = encodeProxyHeader(version, connection)
    const bytes = Buffer.concat([header, behind])
    for (let end = 0; end < header.length; end++) {
      if (decodeProxyHeader(bytes.subarray(0, end)).kind !== 'incomplete') return false
    }
    const decoded = decodeProxyHeader(bytes)
    if (decoded.kind !== 'header' || decoded.length !== header.length) return false
    for (const end of ['source', 'destination'] as const) {
      if (decoded.connection?.[end].port !== connection?.[end].port) return false
      if (decoded.connection?.[end].address !== (connection && canonical(connection[end].address))) return false
    }
    return true
  }), { numRuns: 500 })
  t.pass()
})

t.test('any bytes get one answer, which further bytes do not change', async (t) => {
  const alike = fc.tuple(
    anyHeader, fc.array(fc.tuple(fc.nat(60), fc.nat(255)), { maxLength: 3 }), fc.uint8Array({ maxLength: 200 })
  ).map(([[version, connection], changes, behind]) => {
    const bytes = Buffer.concat([encodeProxyHeader(version, connection), behind])
    for (const [at, value] of changes) bytes[at % bytes.length] = value
    return bytes
  })
  const anything = fc.oneof(alike, fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)))
  const kinds: Record<string, number> = {}
  fc.assert(fc.property(anything, (bytes) => {
    let known: DecodedProxyHeader | undefined
    for (let end = 0; end <= bytes.length; end++) {
      const decoded = decodeProxyHeader(bytes.subarray(0, end))
      if (known !== undefined && !isDeepStrictEqual(decoded, known)) return false
      if (decoded.kind !== 'incomplete') known = decoded
      if (decoded.kind === 'header' && decoded.length > end) return false
    }
    kinds[known?.kind ?? 'incomplete'] = (kinds[known?.kind ?? 'incomplete'] ?? 0) + 1
    return true
  }), { numRuns: 200 })
  t.same(Object.keys(kinds).sort(), ['absent', 'header', 'incomplete', 'malformed'], 'all kinds came up')
})
