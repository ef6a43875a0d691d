import { channel } from 'node:diagnostics_channel'
import type { DetachInfo, PeerInfo } from '../hub/hub-info.ts'
import type { HubEvents, RefusalInfo, RelayHub } from './relay-hub.ts'

/** The messages that hubs publish on channels of `node:diagnostics_channel`, by the channel's name. */
export interface RelayDiagnostics {
  /** A tunnel became a peer of the hub. */
  'fastify-spanza-relay:attach': { hub: RelayHub, peer: PeerInfo }
  /** A peer left. */
  'fastify-spanza-relay:detach': { hub: RelayHub, peer: PeerInfo } & DetachInfo
  /** A handshake was refused. */
  'fastify-spanza-relay:refuse': { hub: RelayHub } & RefusalInfo
}

const channels = {
  attach: channel('fastify-spanza-relay:attach'),
  detach: channel('fastify-spanza-relay:detach'),
  refuse: channel('fastify-spanza-relay:refuse')
}

type Messages = {
  [Name in keyof HubEvents]: (hub: RelayHub, ...args: HubEvents[Name]) => RelayDiagnostics[`fastify-spanza-relay:${Name}`]
}

const messages: Messages = {
  attach: (hub, peer) => ({ hub, peer }),
  detach: (hub, peer, info) => ({ hub, peer, ...info }),
  refuse: (hub, refusal) => ({ hub, ...refusal })
}

/** Publishes a hub event if it has subscribers. Node turns an error that a subscriber throws into an uncaught exception. */
export function publish<Name extends keyof HubEvents> (hub: RelayHub, name: Name, ...args: HubEvents[Name]): void {
  if (channels[name].hasSubscribers) channels[name].publish(messages[name](hub, ...args))
}
