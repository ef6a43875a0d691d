import { isDeepStrictEqual } from 'node:util'
import type { IncomingHttpHeaders } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import type { FastifyInstance } from 'fastify'
import createRouter from 'find-my-way'
import { rewriteUrlOf } from '../internals/fastify-internals.ts'
import type { RelayRequest } from './handshake.ts'

/** The Fastify settings that affect which URLs a pattern matches. */
const matchingOptions = [
  'caseSensitive', 'ignoreTrailingSlash', 'ignoreDuplicateSlashes', 'maxParamLength', 'allowUnsafeRegex', 'useSemicolonDelimiter'
]

/** Fastify's built-in constraints, and how to read their values from a request. */
const builtInConstraints: Record<string, (headers: IncomingHttpHeaders) => string | undefined> = {
  host: (headers) => headers.host ?? headers[':authority'] as string | undefined,
  version: (headers) => headers['accept-version'] as string | undefined
}

type Constraints = Record<string, unknown>
type Router = ReturnType<typeof createRouter>

interface Route {
  /** The full URL pattern, including the prefix. */
  pattern: string
  constraints: Constraints
  isRelay: boolean
  /** True if Fastify may have added a second URL with a trailing slash, without calling `onRoute` again. */
  mayHaveTwin: boolean
}

interface Entry {
  pattern: string
  isRelay: boolean
  /** True if the relay route has constraints that only Fastify can evaluate. */
  isUnsure: boolean
  /** True if no other pattern can match the same URL first. */
  isStatic: boolean
}

/**
 * Finds the relay route of a request. Fastify's `findRoute` returns the parameters of the matching route, but does not say
 * which route matched. So this class mirrors the routes in a second find-my-way router with Fastify's settings. The mirror
 * has every route added after the plugin. If both routers find the same parameters, no other route matches first.
 *
 * This class does not evaluate constraints with a custom strategy. A relay route with such a constraint claims every
 * request for its URL. If Fastify then finds another route, that route answers the handshake.
 */
export class RelayRoutes {
  readonly #fastify: FastifyInstance
  readonly #settings: Record<string, unknown>
  readonly #rewriteUrl: ((request: RelayRequest) => unknown) | undefined
  readonly #routes: Route[] = []
  /** For each constraint that a route uses: whether its strategy is built in. */
  readonly #isBuiltIn = new Map<string, boolean>()
  /** Built once all routes are known. */
  #router: Router | undefined
  #isEmpty = true
  /** Results by request. Each request is looked up twice, before and after it becomes an upgrade; its URL may change in between. */
  readonly #verdicts = new WeakMap<RelayRequest, { url: string, pattern: string | undefined }>()

  constructor (fastify: FastifyInstance) {
    this.#fastify = fastify
    const settings: Record<string, unknown> = { ...fastify.initialConfig, ...fastify.initialConfig.routerOptions }
    this.#settings = Object.fromEntries(matchingOptions.map((name) => [name, settings[name]]))
    this.#rewriteUrl = rewriteUrlOf(fastify)
    // Build the router before the first request, so that an invalid route fails the app's start.
    fastify.addHook('onReady', (done) => {
      this.#router ??= this.#makeRouter()
      done()
    })
  }

  /**
   * Adds a GET route that Fastify is about to add.
   * @param pattern the full URL pattern, including the prefix
   * @param mayHaveTwin true if the path within the prefix is empty; Fastify turns `/` into an empty path
   */
  add (pattern: string, constraints: Constraints = {}, isRelay: boolean, mayHaveTwin = false): void {
    this.#routes.push({ pattern, constraints, isRelay, mayHaveTwin })
    for (const name of Object.keys(constraints)) {
      // A strategy in use cannot be replaced. For one not yet in use, `hasConstraintStrategy` is true only if it was replaced.
      if (!this.#isBuiltIn.has(name)) {
        this.#isBuiltIn.set(name, Object.hasOwn(builtInConstraints, name) && !this.#fastify.hasConstraintStrategy(name))
      }
    }
    if (isRelay) this.#isEmpty = false
    this.#router = undefined
  }

  /** True if the request asks a relay route for a tunnel, by GET over HTTP/1.1 or CONNECT over HTTP/2. Never throws. */
  has (request: RelayRequest): boolean {
    return this.patternOf(request) !== undefined
  }

  /** The URL pattern of the relay route that the request asks for a tunnel; undefined if it asks none. Never throws. */
  patternOf (request: RelayRequest): string | undefined {
    const { method, url } = request
    const wanted = request instanceof Http2ServerRequest ? 'CONNECT' : 'GET'
    if (this.#isEmpty || method !== wanted || url === undefined) return undefined
    const known = this.#verdicts.get(request)
    if (known?.url === url) return known.pattern
    const pattern = this.#relayPattern(request, url)
    this.#verdicts.set(request, { url, pattern })
    return pattern
  }

  #relayPattern (request: RelayRequest, askedUrl: string): string | undefined {
    const url = this.#rewritten(request, askedUrl)
    if (url === undefined) return undefined
    const constraints = this.#derive(request.headers)
    this.#router ??= this.#makeRouter()
    const own = this.#router.find('GET', url, constraints)
    if (own === null) return undefined
    const { pattern, isRelay, isUnsure, isStatic } = own.store as Entry
    if (!isRelay) return undefined
    if (isUnsure || isStatic) return pattern
    const found = this.#fastify.findRoute({ method: 'GET', url, constraints: constraints ?? {} })
    return found !== null && isDeepStrictEqual({ ...found.params }, { ...own.params }) ? pattern : undefined
  }

  /** The URL that Fastify will route; undefined if `rewriteUrl` fails. Fastify calls the app's `rewriteUrl` again later. */
  #rewritten (request: RelayRequest, url: string): string | undefined {
    if (this.#rewriteUrl === undefined) return url
    try {
      const rewritten = this.#rewriteUrl(request)
      return typeof rewritten === 'string' ? rewritten : undefined
    } catch {
      return undefined
    }
  }

  /** The request's values of the built-in constraints; undefined if no route uses one. */
  #derive (headers: IncomingHttpHeaders): Record<string, string | undefined> | undefined {
    let derived: Record<string, string | undefined> | undefined
    for (const [name, isBuiltIn] of this.#isBuiltIn) {
      if (isBuiltIn) (derived ??= {})[name] = builtInConstraints[name]!(headers)
    }
    return derived
  }

  #makeRouter (): Router {
    const router = createRouter(this.#settings)
    // Leave out other routes whose constraints cannot be evaluated, so that they do not hide a relay route.
    const judged = this.#withTwins().filter(({ constraints, isRelay }) => isRelay || this.#canJudge(constraints))
    for (const route of judged) this.#addTo(router, route)
    for (const { pattern } of judged.filter(({ constraints }) => !this.#canJudge(constraints))) {
      // Fastify may choose this relay route before any other route with the same pattern.
      for (const { constraints } of judged) {
        for (const entry of this.#entries(router, pattern, this.#judgeable(constraints))) entry.isRelay = entry.isUnsure = true
      }
    }
    return router
  }

  #withTwins (): Route[] {
    return this.#routes.flatMap((route) => {
      const { pattern, constraints, mayHaveTwin } = route
      const twin = `${pattern}/`
      return mayHaveTwin && this.#fastify.hasRoute({ method: 'GET', url: twin, constraints }) ? [route, { ...route, pattern: twin }] : [route]
    })
  }

  #addTo (router: Router, { pattern, constraints, isRelay }: Route): void {
    const judged = this.#judgeable(constraints)
    for (const spelling of this.#spellings(pattern)) {
      const known = router.findRoute('GET', spelling, judged) as { store: Entry } | null
      // The two routes differ only in custom constraints, so one of them is an unsure relay route.
      if (known !== null) known.store.isRelay ||= isRelay
      else router.on('GET', spelling, { constraints: judged }, () => {}, { pattern, isRelay, isUnsure: false, isStatic: !/[:*]/.test(spelling) } satisfies Entry)
    }
  }

  #entries (router: Router, pattern: string, constraints: Constraints): Entry[] {
    return this.#spellings(pattern).flatMap((spelling) => {
      const known = router.findRoute('GET', spelling, constraints) as { store: Entry } | null
      return known === null ? [] : [known.store]
    })
  }

  /** The patterns that find-my-way derives when it adds a pattern. Its `findRoute` does not derive them. */
  #spellings (pattern: string): string[] {
    const { ignoreDuplicateSlashes, ignoreTrailingSlash } = this.#settings
    const optional = /(\/:[^/()]*?)\?(\/?)$/
    const patterns = optional.test(pattern) ? [pattern.replace(optional, '$1$2'), pattern.replace(optional, '$2') || '/'] : [pattern]
    return patterns.map((pattern) => {
      if (ignoreDuplicateSlashes === true) pattern = pattern.replace(/\/\/+/g, '/')
      if (ignoreTrailingSlash === true && pattern.length > 1 && pattern.endsWith('/')) pattern = pattern.slice(0, -1)
      return pattern
    })
  }

  #canJudge (constraints: Constraints): boolean {
    return Object.keys(constraints).every((name) => this.#isBuiltIn.get(name))
  }

  #judgeable (constraints: Constraints): Constraints {
    return Object.fromEntries(Object.entries(constraints).filter(([name]) => this.#isBuiltIn.get(name)))
  }
}
