import { isDeepStrictEqual } from 'node:util'
import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import createRouter from 'find-my-way'

/** Fastify's settings that decide which URLs a pattern matches. */
const matchingOptions = [
  'caseSensitive', 'ignoreTrailingSlash', 'ignoreDuplicateSlashes', 'maxParamLength', 'allowUnsafeRegex', 'useSemicolonDelimiter'
]

interface Entry {
  isConstrained: boolean
}

/**
 * Tells whether a request's URL leads to a relay route. Fastify's `findRoute` says that a URL leads to some route,
 * with which parameters, but not to which. So the patterns of the relay routes are kept in a second router, the one
 * that Fastify uses, with Fastify's settings; where both find the same parameters, no other route comes first.
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
   * @param pattern the route's full URL, prefix included
   * @param isConstrained whether the route has constraints, which only Fastify itself can judge
   */
  add (pattern: string, isConstrained: boolean): void {
    // With constraints, the app may have several routes of one pattern, also with parameters of other names.
    const known = this.#router.findRoute('GET', pattern) as { store: Entry } | null
    if (known === null) this.#router.on('GET', pattern, () => {}, { isConstrained } satisfies Entry)
    else known.store.isConstrained ||= isConstrained
    this.#isEmpty = false
  }

  has (request: IncomingMessage): boolean {
    if (this.#isEmpty || request.method !== 'GET' || request.url === undefined) return false
    const own = this.#router.find('GET', request.url)
    if (own === null) return false
    if ((own.store as Entry).isConstrained) return true
    const found = this.#fastify.findRoute({ method: 'GET', url: request.url })
    return found !== null && isDeepStrictEqual({ ...found.params }, { ...own.params })
  }
}
