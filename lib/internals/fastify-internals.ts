import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { FastifyInstance } from 'fastify'

/**
 * What Fastify 5 does not tell. An instance keeps its settings and hooks under symbols of its own, found here by their
 * descriptions. Where Fastify has renamed one, these functions return undefined, and the caller does without.
 */

type RawRequest = IncomingMessage | Http2ServerRequest

interface Options {
  rewriteUrl?: (this: object, request: RawRequest) => unknown
}

/** The app's option `rewriteUrl`, bound as Fastify binds it; undefined where the app has none. */
export function rewriteUrlOf (fastify: FastifyInstance): ((request: RawRequest) => unknown) | undefined {
  const [root, options] = find(fastify, 'fastify.options')
  return (options as Options | undefined)?.rewriteUrl?.bind(root!)
}

/** The instance-wide hooks `name` that routes of this scope have, those of outer scopes included; undefined where they cannot be seen. */
export function hooksOf (fastify: FastifyInstance, name: string): readonly unknown[] | undefined {
  const [, hooks] = find(fastify, 'fastify.hooks')
  const added = (hooks as Record<string, unknown> | undefined)?.[name]
  return Array.isArray(added) ? added : undefined
}

/** A child instance has its parent as prototype; the nearest one that has the symbol counts. */
function find (fastify: FastifyInstance, description: string): [owner?: object, value?: unknown] {
  for (let owner: object | null = fastify; owner !== null; owner = Object.getPrototypeOf(owner)) {
    const symbol = Object.getOwnPropertySymbols(owner).find((symbol) => symbol.description === description)
    if (symbol !== undefined) return [owner, (owner as Record<symbol, unknown>)[symbol]]
  }
  return []
}
