import type { IncomingHttpHeaders } from 'node:http'
import type { Framing, FramingName } from '../framing/framing.ts'
import { len16 } from '../framing/len16.ts'
import { wg } from '../framing/wg.ts'
import { chooseFraming } from './handshake.ts'

/** The upgrade tokens the relay speaks, and what each means. A new protocol is one more entry. */

/** What the two sides have agreed on. */
export interface Agreement {
  /** Undefined for `raw`. */
  framing: Framing | undefined
  hasKeepalive: boolean
  /** See `Admitted.holdsOutput`. */
  holdsOutput: boolean
  /** What the 101 says about it. */
  answerHeaders: Record<string, string>
}

type Agree = (headers: IncomingHttpHeaders, framings: readonly FramingName[], maxPacketSize: number) => Agreement

const framingsByName: Record<FramingName, Framing | undefined> = { wg, len16, raw: undefined }

export const framingNames = Object.keys(framingsByName) as FramingName[]

/** `Upgrade: spanza`: a bare stream, or the framing that `Spanza-Framing` negotiates. */
const agreeOnSpanza: Agree = (headers, framings, maxPacketSize) => {
  const asked = headers['spanza-framing']
  const name = chooseFraming(asked, framings)
  const framing = framingsByName[name]
  const answerHeaders: Record<string, string> = {}
  if (asked !== undefined) answerHeaders['Spanza-Framing'] = name
  if (framing !== undefined) answerHeaders['Spanza-Max-Packet'] = String(maxPacketSize)
  return { framing, hasKeepalive: framing !== undefined, holdsOutput: false, answerHeaders }
}

/** `Upgrade: UoTLV/1`, eduVPN's ProxyGuard: `len16`, without keepalives. */
const agreeOnUoTLV: Agree = () => ({ framing: len16, hasKeepalive: false, holdsOutput: false, answerHeaders: {} })

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

export type ProtocolName = keyof typeof protocols

export const protocolNames = Object.keys(protocols) as ProtocolName[]
