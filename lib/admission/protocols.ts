import type { IncomingHttpHeaders } from 'node:http'
import { errors } from '../errors.ts'
import type { Framing, FramingName } from '../framing/framing.ts'
import { framingOf, framingsByName } from '../framing/framings.ts'
import { printable } from '../util/printable.ts'
import { chooseFraming, listOf } from './request-form.ts'

/** The upgrade tokens the relay speaks, and what each means. A new protocol is one more entry. */

/** What the two sides have agreed on. */
export interface Agreement {
  /** Whether datagrams or a bare stream of bytes go through the tunnel. */
  carries: 'datagrams' | 'stream'
  /** Undefined for `raw`, and for a WebSocket. */
  framing: Framing | undefined
  hasKeepalive: boolean
  /** See `Admitted.holdsOutput`. */
  holdsOutput: boolean
  /** What the answer says about it. */
  answerHeaders: Record<string, string>
  /** Undefined where the tunnel is none. */
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
 * `Upgrade: websocket` without a key: the HTTPUpgrade transport of Xray and sing-box, a bare stream. Both can lose, or
 * stumble over, bytes that arrive together with the 101; who asks for a framing is a client of ours, which does not.
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

/** The subprotocols of WebSockets: each message a datagram, or a piece of a stream. */
export const subprotocols = { datagrams: 'spanza.v1', stream: 'spanza.raw.v1' } as const

/**
 * WebSockets (RFC 6455): the first of the client's subprotocols that the route has. A client that names none means
 * datagrams, or a stream where the route takes only that.
 * @throws FST_RELAY_SUBPROTOCOL when they have none in common
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
