import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { FastifyInstance } from 'fastify'

/**
 * Reads internals of Fastify 5. An instance keeps its options and hooks under private symbols, found here by description.
 * If Fastify renames a symbol, these functions return undefined, and the caller must do without.
 */

/** A request as Node makes it. */
export type RawRequest = IncomingMessage | Http2ServerRequest

interface Options {
  rewriteUrl?: (this: object, request: RawRequest) => unknown
}

/** The app's option `rewriteUrl`, bound as Fastify binds it; undefined if the app has not set it. */
export function rewriteUrlOf (fastify: FastifyInstance): ((request: RawRequest) => unknown) | undefined {
  const [root, options] = find(fastify, 'fastify.options')
  return (options as Options | undefined)?.rewriteUrl?.bind(root!)
}

/** The instance-wide hooks `name` of this scope, including those of outer scopes; undefined if they cannot be read. */
export function hooksOf (fastify: FastifyInstance, name: string): readonly unknown[] | undefined {
  const [, hooks] = find(fastify, 'fastify.hooks')
  const added = (hooks as Record<string, unknown> | undefined)?.[name]
  return Array.isArray(added) ? added : undefined
}

/** A child instance has its parent as prototype. The nearest instance with the symbol wins. */
function find (fastify: FastifyInstance, description: string): [owner?: object, value?: unknown] {
  for (let owner: object | null = fastify; owner !== null; owner = Object.getPrototypeOf(owner)) {
    const symbol = Object.getOwnPropertySymbols(owner).find((symbol) => symbol.description === description)
    if (symbol !== undefined) return [owner, (owner as Record<symbol, unknown>)[symbol]]
  }
  return []
}
