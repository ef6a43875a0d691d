import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'

/** The underlying connection of a TLS socket; undefined if unknown. No public API gives it; Node's timers use `_parent`, from 0.12 to 26. */
export function carrierOf (secure: TLSSocket): Socket | undefined {
  return (secure as TLSSocket & { _parent?: Socket | null })._parent ?? undefined
}
