/**
 * The HTTP versions that tunnels are opened over, by the number that the client's option `httpVersion` takes. One entry for each:
 * how Node, the relay's logs and its metrics spell it, and its name in ALPN (RFC 7301).
 */
export const httpVersions = {
  1: { spelling: '1.1', alpn: 'http/1.1' },
  2: { spelling: '2.0', alpn: 'h2' }
} as const

/** A version as the client's option names it. */
export type HttpVersionNumber = keyof typeof httpVersions

/** A version as Node's `request.httpVersion` spells it, and as the relay reports it. */
export type HttpVersion = (typeof httpVersions)[HttpVersionNumber]['spelling']

export const httpVersionNumbers = Object.keys(httpVersions).map(Number) as HttpVersionNumber[]
