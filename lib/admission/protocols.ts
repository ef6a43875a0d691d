import type { IncomingHttpHeaders } from 'node:http'
import { errors } from '../errors.ts'
import type { Framing, FramingName } from '../framing/framing.ts'
import { framingOf, framingsByName } from '../framing/framings.ts'
import { printable } from '../util/printable.ts'
import { chooseFraming, listOf } from './request-form.ts'

/** The upgrade tokens that the relay accepts, and the agreement for each. To add a protocol, add an entry. */

/** The agreement between client and relay. */
export interface Agreement {
  /** What the tunnel carries: datagrams, or a bare byte stream. */
  carries: 'datagrams' | 'stream'
  /** Undefined for `raw` and for a WebSocket. */
  framing: Framing | undefined
  hasKeepalive: boolean
  /** See `Admitted.holdsOutput`. */
  holdsOutput: boolean
  /** The response headers that confirm the agreement. */
  answerHeaders: Record<string, string>
  /** Undefined if the tunnel is not a WebSocket. */
  webSocket: { protocol: string | undefined } | undefined
}

type Agree = (headers: IncomingHttpHeaders, framings: readonly FramingName[], maxPacketSize: number) => Agreement

/** `Upgrade: spanza`: a bare stream, or the framing that `Spanza-Framing` negotiates. */
const agreeOnSpanza: Agree = (headers, framings, maxPacketSize) => {
  const asked = headers['spanza-framing']
  const name = chooseFraming(asked, framings)
  const framing = framingOf(name)
  const answerHeaders: Record<string, string> = {}
  if (asked !== undefined) answerHeaders['Spanza-Framing'] = name
  if (framing !== undefined) answerHeaders['Spanza-Max-Packet'] = String(maxPacketSize)
  return { ...agreementOn(framing), hasKeepalive: framing !== undefined, answerHeaders }
}

/** `Upgrade: UoTLV/1`, eduVPN's ProxyGuard: `len16`, without keepalives. */
const agreeOnUoTLV: Agree = () => agreementOn(framingsByName.len16)

/**
 * `Upgrade: websocket` without a key: the HTTPUpgrade transport of Xray and sing-box, a bare stream. Both can lose or mishandle
 * bytes that arrive together with the 101 response. A client that asks for a framing is a spanza client, which handles them.
 */
const agreeOnHttpUpgrade: Agree = (headers, framings, maxPacketSize) => ({
  ...agreeOnSpanza(headers, framings, maxPacketSize),
  holdsOutput: headers['spanza-framing'] === undefined
})

export const protocols = {
  spanza: agreeOnSpanza,
  'UoTLV/1': agreeOnUoTLV,
  websocket: agreeOnHttpUpgrade
} satisfies Record<string, Agree>

/** An upgrade token that the relay speaks. */
export type ProtocolName = keyof typeof protocols

export const protocolNames = Object.keys(protocols) as ProtocolName[]

/** The WebSocket subprotocols. Each message is a datagram, or a piece of a stream. */
export const subprotocols = { datagrams: 'spanza.v1', stream: 'spanza.raw.v1' } as const

/**
 * Agrees on a WebSocket (RFC 6455) with the first of the client's subprotocols that the route accepts. A client that names
 * none gets datagrams, or a stream if the route accepts only streams.
 * @throws FST_RELAY_SUBPROTOCOL if the route accepts none of the client's subprotocols
 */
export function agreeOnWebSocket (headers: IncomingHttpHeaders, framings: readonly FramingName[], maxPacketSize: number): Agreement {
  const accepted: string[] = [
    ...(framings.some((name) => name !== 'raw') ? [subprotocols.datagrams] : []),
    ...(framings.includes('raw') ? [subprotocols.stream] : [])
  ]
  const asked = listOf(headers['sec-websocket-protocol'])
  const protocol = asked.find((name) => accepted.includes(name))
  if (asked.length > 0 && protocol === undefined) {
    throw new errors.FST_RELAY_SUBPROTOCOL(printable(asked.join(', ')), accepted.join(', '))
  }
  const carriesDatagrams = (protocol ?? accepted[0]) === subprotocols.datagrams
  return {
    ...agreementOn(undefined),
    carries: carriesDatagrams ? 'datagrams' : 'stream',
    hasKeepalive: true,
    answerHeaders: carriesDatagrams ? { 'Spanza-Max-Packet': String(maxPacketSize) } : {},
    webSocket: { protocol }
  }
}

function agreementOn (framing: Framing | undefined): Agreement {
  return {
    carries: framing === undefined ? 'stream' : 'datagrams',
    framing,
    hasKeepalive: false,
    holdsOutput: false,
    answerHeaders: {},
    webSocket: undefined
  }
}
