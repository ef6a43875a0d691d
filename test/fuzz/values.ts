import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import fc, { type Arbitrary } from 'fast-check'
import { canonicalAddress, clientAddress, limitKey } from '../../lib/admission/client-address.ts'
import { checkForm, chooseFraming, chooseProtocol, isHostAllowed, listOf } from '../../lib/admission/request-form.ts'
import { readIdentity, type Identified } from '../../lib/route/identified.ts'
import { protocolNames } from '../../lib/admission/protocols.ts'
import { refusalOf } from '../../lib/client/refusal.ts'
import { findInvalidHeaders, type ReplyHeaders } from '../../lib/entrance/handshake.ts'
import { framingNames } from '../../lib/framing/framings.ts'
import { printable } from '../../lib/util/printable.ts'
import type { Fuzz } from './fuzz.ts'

/** Long enough that what takes the square of it takes minutes. */
const LONG = 200_000

/** Text as it may stand in a header, mostly of the characters that mean something there; now and then a very long one. */
const text: Arbitrary<string> = fc.oneof(
  { weight: 6, arbitrary: fc.string({ unit: fc.constantFrom(...',:.[]%/; \t"=-0123456789abcfgwxABX_\xa0\u2003\u0130'), maxLength: 40, size: 'max' }) },
  { weight: 3, arbitrary: fc.string({ unit: 'binary', maxLength: 60, size: 'max' }) },
  { weight: 1, arbitrary: fc.tuple(fc.string({ maxLength: 4 }), fc.constantFrom(...',: .1a[%'), fc.string({ maxLength: 4 })).map(([before, unit, after]) => before + unit.repeat(LONG) + after) },
  { weight: 1, arbitrary: fc.tuple(fc.string({ minLength: 1, maxLength: 4 }), fc.string({ maxLength: 3 })).map(([unit, after]) => unit.repeat(LONG / 4) + after) }
)

/** Runs it, and lets errors of this package pass. */
function refusing<Result> (run: () => Result): Result | undefined {
  try {
    return run()
  } catch (error) {
    assert.match((error as { code: string }).code, /^FST_RELAY_/, (error as Error).stack)
  }
}

const token = fc.oneof(
  fc.constantFrom(...protocolNames, ...framingNames, 'SPANZA', 'uotlv/1', 'WG', 'h2c', ''),
  fc.string({ unit: fc.constantFrom('a', 'w', 'g', '/', '1', '-'), maxLength: 5 })
)
const space = fc.constantFrom('', ' ', '\t', '  ')

const lists: Fuzz = {
  name: 'values-lists',
  title: 'of a list in a header the first member that is accepted is chosen, whatever the others are',
  runs: 250,
  prepare: () => fc.property(fc.array(fc.tuple(space, token, space)), fc.subarray(protocolNames), fc.subarray(framingNames), text, (members, protocols, framings, any) => {
    const header = members.map((member) => member.join('')).join(',')
    const tokens = members.map(([, token]) => token).filter((token) => token !== '')
    assert.deepEqual(listOf(header), tokens)
    assert.deepEqual(listOf(members.map((member) => member.join(''))), tokens)
    const first = <Name extends string>(names: readonly Name[]) =>
      tokens.flatMap((token) => names.filter((name) => name.toLowerCase() === token.toLowerCase()))[0]
    assert.equal(chooseProtocol(header, protocols), first(protocols))
    assert.equal(refusing(() => chooseFraming(header, framings)), first(framings))

    assert.ok(listOf(any).every((member) => member !== '' && !member.includes(',') && member === member.trim()))
    chooseProtocol(any, protocolNames)
    refusing(() => chooseFraming(any, framingNames))
  })
}

const hosts: Fuzz = {
  name: 'values-hosts',
  title: 'a host is allowed by its name alone, whatever its case, port and trailing dot, and nothing else is',
  runs: 250,
  prepare: () => fc.property(
    fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6().map((address) => `[${address}]`)), fc.option(fc.nat(65535), { nil: undefined }), fc.boolean(), fc.boolean(), text,
    (name, port, hasDot, isUpper, any) => {
      const isName = !/^[[\d]/.test(name)
      const host = (isUpper ? name.toUpperCase() : name) + (hasDot && isName ? '.' : '') + (port === undefined ? '' : `:${port}`)
      assert.ok(isHostAllowed(host, ['other.example', name]), host)
      for (const other of [`x${name}`, `x.${name}`, `${name}.example`, `${name}x`, `${name}:80.example`]) assert.ok(!isHostAllowed(other, [name]), other)
      assert.ok(!isHostAllowed(any, ['the.only.example']) || /^the\.only\.example\.?(?::\d+)?$/i.test(any))
      isHostAllowed(name, [any])
    })
}

const hex = fc.nat(0xffff).map((part) => part.toString(16))
const addressText = fc.oneof(
  fc.ipV4(), fc.ipV6(), fc.ipV4().map((address) => `::ffff:${address}`), fc.ipV4().map((address) => `64:ff9b::${address}`),
  fc.tuple(fc.ipV6(), fc.string({ maxLength: 5 })).map(([address, zone]) => `${address}%${zone}`),
  fc.tuple(fc.array(fc.oneof({ weight: 5, arbitrary: hex }, { weight: 1, arbitrary: fc.constant('') }), { minLength: 2, maxLength: 9 })).map(([parts]) => parts.join(':')),
  fc.tuple(fc.ipV4(), fc.nat(65535)).map(([address, port]) => `${address}:${port}`),
  fc.array(fc.constantFrom('0', '1', '255', '256', '01', '0x1', ''), { minLength: 3, maxLength: 5 }).map((parts) => parts.join('.')),
  text
)

const addresses: Fuzz = {
  name: 'values-addresses',
  title: 'every text is an address or none, one address has one form, and a client of IPv6 has one /64',
  runs: 400,
  prepare: () => fc.property(addressText, fc.array(hex, { minLength: 8, maxLength: 8 }), fc.array(hex, { minLength: 4, maxLength: 4 }), (any, parts, otherHalf) => {
    const address = canonicalAddress(any)
    // As proxies write it: with a port, IPv6 in brackets then, and in quotes.
    const bare = any.replace(/^"(.*)"$/, '$1').replace(/^([\d.]+|\[[^\]]+\])(?::\d{1,5})?$/, '$1').replace(/^\[(.*)\]$/, (all, inside) => isIP(inside) === 6 ? inside : all)
    assert.equal(address !== undefined, isIP(bare) !== 0)
    assert.equal(any === '' ? undefined : refusing(() => clientAddress(any)), address)
    if (address !== undefined) {
      assert.equal(canonicalAddress(address), address)
      assert.equal(canonicalAddress(bare.toUpperCase().replace(/%.*/s, '')), address)
      assert.equal(isIP(address) === 4 ? address : undefined, isIP(address) === 4 ? limitKey(address) : undefined)
      assert.match(limitKey(address), /^[\d.]+$|^(?:[\da-f]{1,4}:){4}:\/64$/)
    }
    // Four parts that are not all zero: else it might be an IPv4 address in IPv6.
    const prefix = ['2001', ...parts.slice(1, 4)]
    const one = canonicalAddress([...prefix, ...parts.slice(4)].join(':'))!
    assert.equal(limitKey(one), limitKey(canonicalAddress([...prefix, ...otherHalf].join(':'))!))
    assert.notEqual(limitKey(one), limitKey(canonicalAddress(['2002', ...prefix.slice(1), ...otherHalf].join(':'))!))
  })
}

const anything: Arbitrary<unknown> = fc.oneof(text, fc.anything(), fc.uint8Array({ minLength: 31, maxLength: 33 }), fc.base64String({ minLength: 44, maxLength: 44 }), fc.constant(null))

const identities: Fuzz = {
  name: 'values-identities',
  title: 'what identify returns is an identity of bounded size, or refused as unusable',
  runs: 250,
  prepare: () => fc.property(fc.oneof(fc.record({ id: anything, channel: anything, publicKey: anything, context: fc.anything() }, { requiredKeys: [] }), fc.constant(null), fc.constant(undefined)), (identified) => {
    const read = refusing(() => readIdentity(identified as Identified))
    if (read === undefined) return
    const { id, channel, publicKey } = read
    assert.ok(id === undefined || (typeof id === 'string' && id.length >= 1 && id.length <= 255))
    assert.ok(channel === undefined || (typeof channel === 'string' && channel.length <= 255))
    assert.ok(publicKey === undefined || (publicKey.length === 32 && (identified!.id !== undefined || id === publicKey.toString('base64'))))
  })
}

const header = fc.tuple(fc.oneof(fc.constantFrom('Host', 'host', 'Content-Length', 'Transfer-Encoding', 'x'), text), text)

const forms: Fuzz = {
  name: 'values-requests',
  title: 'a request is well-formed only with one Host, a path, HTTP/1.1 and no body',
  runs: 250,
  prepare: () => fc.property(fc.array(header, { maxLength: 6 }), fc.oneof(text, text.map((path) => `/${path}`)), fc.constantFrom('1.1', '1.0', '2.0'), fc.constantFrom(0, 3, 2000), (lines, url, httpVersion, maxHeaders) => {
    const headers: Record<string, string> = Object.create(null)
    for (const [name, value] of lines) headers[name.toLowerCase()] ??= value
    const request = { rawHeaders: lines.flat(), headers, url, httpVersion } as unknown as IncomingMessage
    const hosts = lines.filter(([name]) => name.toLowerCase() === 'host').length
    const isRight = hosts === 1 && url.startsWith('/') && httpVersion === '1.1' && headers['transfer-encoding'] === undefined &&
      ['0', undefined].includes(headers['content-length']) && (maxHeaders === 0 || lines.length < maxHeaders)
    const error = checkForm(request, maxHeaders)
    assert.equal(error === undefined, isRight)
    if (error !== undefined) assert.match(error.code, /^FST_RELAY_/)
  })
}

const refusals: Fuzz = {
  name: 'values-refusals',
  title: 'any refusal is read: its text can be shown, and the time to wait is a number of seconds',
  runs: 250,
  prepare: () => fc.property(
    fc.integer({ min: 100, max: 999 }), fc.option(text, { nil: undefined }), text,
    fc.option(fc.oneof(text, fc.nat().map(String), fc.date({ noInvalidDate: true }).map((date) => date.toUTCString()), fc.date().map(String), fc.double().map(String)), { nil: undefined }),
    fc.oneof(text, fc.json(), fc.record({ code: fc.oneof(text, fc.anything()), message: fc.oneof(text, fc.anything()) }).map((value) => fc.stringify(value))),
    (statusCode, location, statusMessage, retryAfter, body) => {
      const headers = { ...(location === undefined ? {} : { location }), ...(retryAfter === undefined ? {} : { 'retry-after': retryAfter }) }
      const error = refusalOf({ statusCode, statusMessage, headers } as unknown as IncomingMessage, Buffer.from(body))
      assert.equal(error.code, 'FST_RELAY_REFUSED')
      assert.equal(error.statusCode, statusCode)
      assert.ok(error.message.length < 1200)
      assert.equal(printable(error.message, 2000), error.message)
      assert.ok(error.retryAfter === undefined || (Number.isInteger(error.retryAfter) && error.retryAfter >= 0), String(error.retryAfter))
      assert.ok(error.relayCode === undefined || (error.relayCode.length <= 500 && printable(error.relayCode, 500) === error.relayCode))
    })
}

const replyHeaders: Fuzz = {
  name: 'values-reply-headers',
  title: 'of the headers that hooks have set, those that would break the answer are found',
  runs: 250,
  prepare: () => fc.property(fc.dictionary(fc.oneof(text, fc.constantFrom('x-a', 'x-b')), fc.oneof(text, fc.array(text, { maxLength: 3 }), fc.anything()), { maxKeys: 4 }), (headers) => {
    const invalid = findInvalidHeaders(headers as ReplyHeaders)
    for (const [name, value] of Object.entries(headers)) {
      if (invalid.includes(name)) continue
      assert.match(name, /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/)

      for (const line of value === undefined ? [] : [value].flat()) assert.match(String(line), /^[\t\x20-\x7e\x80-\xff]*$/)
    }
  })
}

export const valueFuzzes: Fuzz[] = [lists, hosts, addresses, identities, forms, refusals, replyHeaders]
