import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** The connection that TLS is spoken on. No public API leads there; Node's own timers go this way, from 0.12 to 26. Undefined where it is not found. */
export function carrierOf (secure: TLSSocket): Socket | undefined {
  return (secure as TLSSocket & { _parent?: Socket | null })._parent ?? undefined
}
