import { captureRejectionSymbol, EventEmitter } from 'node:events'
import type { Hub, HubLog } from '../hub/hub.ts'
import type { ChannelInfo, PeerInfo, PeerSelector } from '../hub/hub-info.ts'
import { LogLimit } from './log-limit.ts'
import { publish } from './diagnostics.ts'
import type { HandshakeCounters } from './handshake-counters.ts'
import type { HubEvents, HubStats, RelayHub } from './relay-hub.ts'

/** The app's view of a hub: `fastify.relayHub`, with its events. */
export class HubFacade extends EventEmitter<HubEvents> implements RelayHub {
  readonly #hub: Hub
  readonly #handshakes: HandshakeCounters
  readonly #refusedConnections: Readonly<Record<string, number>>
  readonly #log: HubLog
  readonly #logLimit = new LogLimit()

  /** @param refusedConnections live counters of `proxyProtocol`, by reason */
  constructor (hub: Hub, handshakes: HandshakeCounters, refusedConnections: Readonly<Record<string, number>>, log: HubLog) {
    super({ captureRejections: true })
    this.#hub = hub
    this.#handshakes = handshakes
    this.#refusedConnections = refusedConnections
    this.#log = log
  }

  get options (): RelayHub['options'] {
    return this.#hub.options
  }

  get isClosing (): boolean {
    return this.#hub.isClosing
  }

  peers (): PeerInfo[] {
    return this.#hub.peers()
  }

  channels (): ChannelInfo[] {
    return this.#hub.channels()
  }

  stats (): HubStats {
    return { ...this.#hub.stats(), ...structuredClone(this.#handshakes), refusedConnections: { ...this.#refusedConnections } }
  }

  disconnect (selector: PeerSelector, text?: string): number {
    return this.#hub.disconnect(selector, text)
  }

  /** Emits an event. The hub is in the middle of its work, so an error in a listener is logged and not thrown. */
  announce<Name extends keyof HubEvents> (name: Name, ...args: HubEvents[Name]): void {
    // Publish first: a listener may cause further events.
    publish(this, name, ...args)
    try {
      this.emit<keyof HubEvents>(name, ...args)
    } catch (error) {
      this[captureRejectionSymbol](error, name)
    }
  }

  /** Node calls this when an async listener rejects. Unhandled, the rejection would end the process. */
  override [captureRejectionSymbol] (err: unknown, ...[event]: unknown[]): void {
    // A listener may throw for every handshake.
    const suppressed = this.#logLimit.take(String(event), performance.now())
    if (suppressed !== undefined) this.#log.error({ err, event, suppressed }, 'a listener of the relay hub threw')
  }
}
