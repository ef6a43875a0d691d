/**
 * The HTTP versions that can open tunnels, by the number in the client's option `httpVersion`. Each entry has the spelling that
 * Node, the relay's logs and its metrics use, and the name in ALPN (RFC 7301).
 */
export const httpVersions = {
  1: { spelling: '1.1', alpn: 'http/1.1' },
  2: { spelling: '2.0', alpn: 'h2' }
} as const

/** A version as in the client's option `httpVersion`. */
export type HttpVersionNumber = keyof typeof httpVersions

/** A version as Node's `request.httpVersion` spells it, and as the relay reports it. */
export type HttpVersion = (typeof httpVersions)[HttpVersionNumber]['spelling']

export const httpVersionNumbers = Object.keys(httpVersions).map(Number) as HttpVersionNumber[]
