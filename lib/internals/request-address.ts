import type { FastifyRequest } from 'fastify'
import type { RawRequest } from './fastify-internals.ts'

/**
 * Finds the client's address before Fastify creates its request object, so that limits apply before any hook.
 * Fastify exposes the effect of `trustProxy` only in the getter `request.ip`, which needs no property but `raw`.
 */
export class RequestAddress {
  /** The prototype of Fastify's requests, taken from the first request. */
  #prototype: object | undefined
  #isLearned = false

  /** Takes the prototype from the first Fastify request. Further calls do nothing. */
  learn (request: FastifyRequest): void {
    if (this.#isLearned) return
    this.#isLearned = true
    const prototype = Object.getPrototypeOf(request)
    // If the getter does not work as expected, the limits are checked in a hook.
    if (read(prototype, request.raw as RawRequest) === request.ip) this.#prototype = prototype
  }

  /** Drops the prototype. Call it if a hook changes the proxy headers, because addresses read before the hook are then wrong. */
  forget (): void {
    this.#prototype = undefined
  }

  /** True if `of` may be called. */
  get isKnown (): boolean {
    return this.#prototype !== undefined
  }

  /** The later value of `request.ip`; undefined if the app's `trustProxy` function throws. */
  of (request: RawRequest): string | undefined {
    return read(this.#prototype!, request)
  }
}

function read (prototype: object, raw: RawRequest): string | undefined {
  try {
    return (Object.create(prototype, { raw: { value: raw } }) as FastifyRequest).ip
  } catch {
    // The app's `trustProxy` function may throw.
    return undefined
  }
}
