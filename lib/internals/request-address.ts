import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { FastifyRequest } from 'fastify'

type RawRequest = IncomingMessage | Http2ServerRequest

/**
 * Tells the client's address before Fastify has made its request object, so that limits can be tested before any hook.
 * `trustProxy` is in no public place but the getter `ip` of those objects, which needs nothing but their property `raw`.
 */
export class RequestAddress {
  /** What Fastify's requests inherit from; the first one shows it. */
  #prototype: object | undefined
  #isLearned = false

  /** Learns from a request of Fastify. */
  learn (request: FastifyRequest): void {
    if (this.#isLearned) return
    this.#isLearned = true
    const prototype = Object.getPrototypeOf(request)
    // Where it is not as expected, limits are tested in a hook.
    if (read(prototype, request.raw as RawRequest) === request.ip) this.#prototype = prototype
  }

  /** A hook has changed what proxies say: what can be told before it is not to be believed. */
  forget (): void {
    this.#prototype = undefined
  }

  /** Whether `of` can be called. */
  get isKnown (): boolean {
    return this.#prototype !== undefined
  }

  /** What `request.ip` will be. */
  of (request: RawRequest): string | undefined {
    return read(this.#prototype!, request)
  }
}

function read (prototype: object, raw: RawRequest): string | undefined {
  try {
    return (Object.create(prototype, { raw: { value: raw } }) as FastifyRequest).ip
  } catch {
    // The function that the app has given as `trustProxy` may throw.
    return undefined
  }
}
