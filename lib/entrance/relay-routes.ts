import { isDeepStrictEqual } from 'node:util'
import type { IncomingHttpHeaders } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import type { FastifyInstance } from 'fastify'
import createRouter from 'find-my-way'
import type { RelayRequest } from './handshake.ts'

/** Fastify's settings that decide which URLs a pattern matches. */
const matchingOptions = [
  'caseSensitive', 'ignoreTrailingSlash', 'ignoreDuplicateSlashes', 'maxParamLength', 'allowUnsafeRegex', 'useSemicolonDelimiter'
]

/** The constraints that Fastify knows by itself, and where the request says what they are about. */
const knownConstraints: Record<string, (headers: IncomingHttpHeaders) => string | undefined> = {
  host: (headers) => headers.host ?? headers[':authority'] as string | undefined,
  version: (headers) => headers['accept-version'] as string | undefined
}

interface Entry {
  pattern: string
  isRelay: boolean
  /** Whether the relay route has constraints of the app's own making, which only Fastify itself can judge. */
  isUnsure: boolean
}

/**
 * Tells whether a request leads to a relay route. Fastify's `findRoute` says that it leads to some route, with which
 * parameters, but not to which. So the app's routes, as far as they were added behind the plugin, are kept in a second router,
 * the one that Fastify uses, with Fastify's settings; where both find the same parameters, no other route comes first.
 */
export class RelayRoutes {
  readonly #fastify: FastifyInstance
  readonly #router: ReturnType<typeof createRouter>
  #isEmpty = true

  constructor (fastify: FastifyInstance) {
    this.#fastify = fastify
    const settings: Record<string, unknown> = { ...fastify.initialConfig, ...fastify.initialConfig.routerOptions }
    this.#router = createRouter(Object.fromEntries(matchingOptions.map((name) => [name, settings[name]])))
  }

  /**
   * Adds a route for GET.
   * @param pattern its full URL, prefix included
   */
  add (pattern: string, constraints: Record<string, unknown> = {}, isRelay: boolean): void {
    const judged = Object.fromEntries(Object.entries(constraints).filter(([name]) => Object.hasOwn(knownConstraints, name)))
    const isUnsure = Object.keys(judged).length < Object.keys(constraints).length
    const known = this.#router.findRoute('GET', pattern, judged) as { store: Entry } | null
    if (known === null) {
      this.#router.on('GET', pattern, { constraints: judged }, () => {}, { pattern, isRelay, isUnsure } satisfies Entry)
    } else {
      // They differ in what is not judged here: whether it is the relay route is Fastify's to find out.
      known.store.isUnsure = true
      known.store.isRelay ||= isRelay
    }
    if (isRelay) this.#isEmpty = false
  }

  /** Whether it asks a relay route for a tunnel: with GET over HTTP/1.1, with CONNECT over HTTP/2. */
  has (request: RelayRequest): boolean {
    return this.patternOf(request) !== undefined
  }

  /** The URL pattern of the relay route that it asks for a tunnel. */
  patternOf (request: RelayRequest): string | undefined {
    const { method, url, headers } = request
    const wanted = request instanceof Http2ServerRequest ? 'CONNECT' : 'GET'
    if (this.#isEmpty || method !== wanted || url === undefined) return undefined
    const constraints = Object.fromEntries(Object.entries(knownConstraints).map(([name, read]) => [name, read(headers)]))
    const own = this.#router.find('GET', url, constraints)
    if (own === null || !(own.store as Entry).isRelay) return undefined
    const { pattern, isUnsure } = own.store as Entry
    if (isUnsure) return pattern
    const found = this.#fastify.findRoute({ method: 'GET', url, constraints })
    return found !== null && isDeepStrictEqual({ ...found.params }, { ...own.params }) ? pattern : undefined
  }
}
