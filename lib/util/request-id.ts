import type { FastifyRequest } from 'fastify'
import { printable } from './printable.ts'

/** The id of a request for a log line: with `requestIdHeader` the client has chosen it, with `genReqId` it may be no string. */
export function shownId ({ id }: FastifyRequest): string {
  return printable(String(id))
}
