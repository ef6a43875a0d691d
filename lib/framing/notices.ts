/**
 * What the relay tells a peer about its WireGuard handshakes: the names, and their codes in a `wg` notice frame. Programs
 * go by the code; the text beside it is the relay's words for people.
 */
export const notices = {
  /** A handshake was answered: the first of this tunnel with that peer, or the first after a notice about it. */
  answered: 1,
  /** No other peer is attached to the channel. */
  alone: 2,
  /** No peer of the channel has the public key that the handshakes are made for. */
  'no-responder': 3,
  /** The peer with that public key has no tunnel at the moment. */
  'peer-away': 4,
  /** The handshakes arrived and were not answered. */
  unanswered: 5,
  'initiation-rate': 6,
  'mac1-budget': 7,
  'index-collision': 8
} as const

/** What a relay tells a client about its WireGuard handshakes. */
export type NoticeName = keyof typeof notices

const byCode = new Map<number, NoticeName>(Object.entries(notices).map(([name, code]) => [code, name as NoticeName]))

/** The name of a notice frame's code, or undefined for a code this version does not know. */
export function noticeNameOf (code: number): NoticeName | undefined {
  return byCode.get(code)
}
