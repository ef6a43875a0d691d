import { errors } from '../../errors.ts'
import { wasCut } from '../connect-error.ts'
import type { ClientProtocol } from '../options/connect-options.ts'
import type { RelayRefusedError } from '../refusal.ts'

/** The protocols of a sidecar: `auto` is `spanza`, and a WebSocket where the path lets nothing else through. */
export type SidecarProtocol = ClientProtocol | 'auto'

/** How long a WebSocket that worked is tried first, in milliseconds. After that, `spanza` is tried first again. */
const REMEMBER_MS = 60 * 60 * 1000
/** Statuses of a proxy that does not pass an upgrade on, and of a server behind it that gets the request without one. */
const LOST_UPGRADE_STATUSES = [400, 403, 404, 405, 426, 501, 502]

/** Chooses the protocol of each attempt, and remembers what worked. */
export class ProtocolChoice {
  readonly #protocol: SidecarProtocol
  #webSocketUntil = 0

  constructor (protocol: SidecarProtocol) {
    this.#protocol = protocol
  }

  /**
   * Makes one attempt, or under `auto` a second one if needed.
   * @param onFallback called when a WebSocket has been opened, with the error that made it necessary
   * @throws the error of the attempt; of two, the more telling one
   */
  async connect<T> (attempt: (protocol: ClientProtocol) => Promise<T>, onFallback: (error: Error) => void): Promise<T> {
    if (this.#protocol !== 'auto') return await attempt(this.#protocol)
    if (performance.now() < this.#webSocketUntil) {
      try {
        return await attempt('websocket')
      } catch (error) {
        // The network may have changed.
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

/** Whether something on the path may have blocked the upgrade. */
function hasLostUpgrade (error: Error): boolean {
  if (error instanceof errors.FST_RELAY_ANSWER) return true
  if (error instanceof errors.FST_RELAY_CONNECT) return wasCut(error)
  if (!(error instanceof errors.FST_RELAY_REFUSED)) return false
  return !isRelays(error) && LOST_UPGRADE_STATUSES.includes((error as unknown as RelayRefusedError).statusCode)
}

function isRelays (error: Error): boolean {
  return error instanceof errors.FST_RELAY_REFUSED && (error as unknown as RelayRefusedError).answeredBy === 'relay'
}
