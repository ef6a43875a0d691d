import { isDeepStrictEqual } from 'node:util'
import type { IncomingHttpHeaders } from 'node:http'
import { Http2ServerRequest } from 'node:http2'
import type { FastifyInstance } from 'fastify'
import createRouter from 'find-my-way'
import { rewriteUrlOf } from '../internals/fastify-internals.ts'
import type { RelayRequest } from './handshake.ts'

/** Fastify's settings that decide which URLs a pattern matches. */
const matchingOptions = [
  'caseSensitive', 'ignoreTrailingSlash', 'ignoreDuplicateSlashes', 'maxParamLength', 'allowUnsafeRegex', 'useSemicolonDelimiter'
]

/** The constraints that Fastify knows by itself, and where the request says what they are about. */
const builtInConstraints: Record<string, (headers: IncomingHttpHeaders) => string | undefined> = {
  host: (headers) => headers.host ?? headers[':authority'] as string | undefined,
  version: (headers) => headers['accept-version'] as string | undefined
}

type Constraints = Record<string, unknown>
type Router = ReturnType<typeof createRouter>

interface Route {
  /** Its full URL, prefix included. */
  pattern: string
  constraints: Constraints
  isRelay: boolean
  /** Whether Fastify may have given it a second URL, with a slash at the end, without calling `onRoute` again. */
  mayHaveTwin: boolean
}

interface Entry {
  pattern: string
  isRelay: boolean
  /** Whether the relay route has constraints that only Fastify itself can judge. */
  isUnsure: boolean
  /** Whether no other pattern can match the same URL first. */
  isStatic: boolean
}

/**
 * Tells whether a request leads to a relay route. Fastify's `findRoute` says that it leads to some route, with which
 * parameters, but not to which. So the app's routes, as far as they were added behind the plugin, are kept in a second router,
 * the one that Fastify uses, with Fastify's settings; where both find the same parameters, no other route comes first.
 *
 * Constraints with a strategy of the app's own are not judged here: a relay route that has some claims every request for its
 * URL. Where Fastify then finds another route, that one answers the handshake.
 */
export class RelayRoutes {
  readonly #fastify: FastifyInstance
  readonly #settings: Record<string, unknown>
  readonly #rewriteUrl: ((request: RelayRequest) => unknown) | undefined
  readonly #routes: Route[] = []
  /** For each built-in constraint that a route has used: whether its strategy is the built-in one. */
  readonly #isBuiltIn = new Map<string, boolean>()
  /** Made when all routes are known. */
  #router: Router | undefined
  #isEmpty = true
  /** A request is asked about twice, before and after it has become an upgrade; its URL may have been changed meanwhile. */
  readonly #verdicts = new WeakMap<RelayRequest, { url: string, pattern: string | undefined }>()

  constructor (fastify: FastifyInstance) {
    this.#fastify = fastify
    const settings: Record<string, unknown> = { ...fastify.initialConfig, ...fastify.initialConfig.routerOptions }
    this.#settings = Object.fromEntries(matchingOptions.map((name) => [name, settings[name]]))
    this.#rewriteUrl = rewriteUrlOf(fastify)
    // Not at the first request: what cannot be added keeps the app from starting, and no request meets it.
    fastify.addHook('onReady', (done) => {
      this.#router ??= this.#makeRouter()
      done()
    })
  }

  /**
   * Adds a route for GET, as Fastify is about to do.
   * @param pattern its full URL, prefix included
   * @param mayHaveTwin whether its path within the prefix is empty, which `/` becomes
   */
  add (pattern: string, constraints: Constraints = {}, isRelay: boolean, mayHaveTwin = false): void {
    this.#routes.push({ pattern, constraints, isRelay, mayHaveTwin })
    for (const name of Object.keys(constraints)) {
      // Fastify lets nobody replace a strategy that is in use, and of one that is not, this tells whether it was replaced.
      if (!this.#isBuiltIn.has(name)) {
        this.#isBuiltIn.set(name, Object.hasOwn(builtInConstraints, name) && !this.#fastify.hasConstraintStrategy(name))
      }
    }
    if (isRelay) this.#isEmpty = false
    this.#router = undefined
  }

  /** Whether it asks a relay route for a tunnel: with GET over HTTP/1.1, with CONNECT over HTTP/2. Never throws. */
  has (request: RelayRequest): boolean {
    return this.patternOf(request) !== undefined
  }

  /** The URL pattern of the relay route that it asks for a tunnel; undefined where it asks none. Never throws. */
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

  /** The URL that Fastify will route, undefined where it will route none. Fastify calls the app's function once more. */
  #rewritten (request: RelayRequest, url: string): string | undefined {
    if (this.#rewriteUrl === undefined) return url
    try {
      const rewritten = this.#rewriteUrl(request)
      return typeof rewritten === 'string' ? rewritten : undefined
    } catch {
      return undefined
    }
  }

  /** Undefined where no route has a constraint that is judged here. */
  #derive (headers: IncomingHttpHeaders): Record<string, string | undefined> | undefined {
    let derived: Record<string, string | undefined> | undefined
    for (const [name, isBuiltIn] of this.#isBuiltIn) {
      if (isBuiltIn) (derived ??= {})[name] = builtInConstraints[name]!(headers)
    }
    return derived
  }

  #makeRouter (): Router {
    const router = createRouter(this.#settings)
    // A route that is not a relay's and may or may not match is left out, so that a relay's behind it is found.
    const judged = this.#withTwins().filter(({ constraints, isRelay }) => isRelay || this.#canJudge(constraints))
    for (const route of judged) this.#addTo(router, route)
    for (const { pattern } of judged.filter(({ constraints }) => !this.#canJudge(constraints))) {
      // Of the routes with this pattern, Fastify may choose it before any other.
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
      // They differ in what is not judged here, so one of them is an unsure relay route.
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

  /** The patterns that find-my-way makes of one when it is added, which it does not do when it is asked for one. */
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
