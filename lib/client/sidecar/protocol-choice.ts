import { errors } from '../../errors.ts'
import { wasCut } from '../connect-error.ts'
import type { ClientProtocol } from '../options/connect-options.ts'
import type { RelayRefusedError } from '../refusal.ts'

/** What a sidecar can be told to speak: `auto` is `spanza`, and a WebSocket where nothing else is let through. */
export type SidecarProtocol = ClientProtocol | 'auto'

/** For how long WebSockets are taken for the only way, in milliseconds: then `spanza` is tried first again. */
const REMEMBER_MS = 60 * 60 * 1000
/** What a proxy answers that does not pass an upgrade on, and the server behind it that gets a request without one. */
const LOST_UPGRADE_STATUSES = [400, 403, 404, 405, 426, 501, 502]

/** Chooses the protocol of each attempt, and remembers what worked. */
export class ProtocolChoice {
  readonly #protocol: SidecarProtocol
  #webSocketUntil = 0

  constructor (protocol: SidecarProtocol) {
    this.#protocol = protocol
  }

  /**
   * Makes one attempt, or under `auto` two if it takes two.
   * @param onFallback told why it is a WebSocket, when one has just been opened
   * @throws what the attempt threw; of two, what tells more
   */
  async connect<T> (attempt: (protocol: ClientProtocol) => Promise<T>, onFallback: (error: Error) => void): Promise<T> {
    if (this.#protocol !== 'auto') return await attempt(this.#protocol)
    if (performance.now() < this.#webSocketUntil) {
      try {
        return await attempt('websocket')
      } catch (error) {
        // It may be another network by now.
        this.#webSocketUntil = 0
        throw error
      }
    }
    try {
      return await attempt('spanza')
    } catch (error) {
      if (!hasLostUpgrade(error as Error)) throw error
      const opened = await attempt('websocket').catch((second) => { throw isRelays(second) ? second : error })
      this.#webSocketUntil = performance.now() + REMEMBER_MS
      onFallback(error as Error)
      return opened
    }
  }
}

/** Whether something in between may not have let the upgrade through. */
function hasLostUpgrade (error: Error): boolean {
  if (error instanceof errors.FST_RELAY_ANSWER) return true
  if (error instanceof errors.FST_RELAY_CONNECT) return wasCut(error)
  if (!(error instanceof errors.FST_RELAY_REFUSED)) return false
  return !isRelays(error) && LOST_UPGRADE_STATUSES.includes((error as unknown as RelayRefusedError).statusCode)
}

function isRelays (error: Error): boolean {
  return error instanceof errors.FST_RELAY_REFUSED && (error as unknown as RelayRefusedError).answeredBy === 'relay'
}
