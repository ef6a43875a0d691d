import type { Duplex } from 'node:stream'
import { isCutShort } from '../http2-stream.ts'
import { wasReset } from './plain-socket.ts'

/** Calls `then` when the other side has ended its stream. What Node shows as an end, but is a reset, breaks the tunnel. */
export function onEnd (tunnel: Duplex, then: () => void): void {
  tunnel.on('end', () => {
    if (tunnel.destroyed || isCutShort(tunnel)) return
    if (wasReset(tunnel)) tunnel.destroy(new Error('the connection was reset'))
    else then()
  })
}
