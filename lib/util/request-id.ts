import type { FastifyRequest } from 'fastify'
import { printable } from './printable.ts'

/** Returns a request's id for a log line. With `requestIdHeader`, the client chooses the id. With `genReqId`, it may not be a string. */
export function shownId ({ id }: FastifyRequest): string {
  return printable(String(id))
}
