/**
 * The relay's notices to a peer about its WireGuard handshakes: their names, and their codes in a `wg` notice frame.
 * Programs must use the code. The text in the frame is for people.
 */
export const notices = {
  /** A peer answered a handshake. Sent for the tunnel's first with that peer, and for the first after a notice about it. */
  answered: 1,
  /** No other peer is attached to the channel. */
  alone: 2,
  /** No peer of the channel has the public key that the handshakes are addressed to. */
  'no-responder': 3,
  /** The peer with that public key is known, but has no tunnel now. */
  'peer-away': 4,
  /** The handshakes reached the peer, which did not answer. */
  unanswered: 5,
  'initiation-rate': 6,
  'mac1-budget': 7,
  'index-collision': 8
} as const

/** What a relay tells a client about its WireGuard handshakes. */
export type NoticeName = keyof typeof notices

const byCode = new Map<number, NoticeName>(Object.entries(notices).map(([name, code]) => [code, name as NoticeName]))

/** Returns the name for a notice frame's code, or undefined if this version does not know the code. */
export function noticeNameOf (code: number): NoticeName | undefined {
  return byCode.get(code)
}
