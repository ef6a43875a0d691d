import type { Tunnel } from '../../tunnel/tunnel.ts'
import { FramedPeer } from './framed-peer.ts'
import type { PacketPeer, PacketRouter } from './packet-peer.ts'
import type { Admitted } from '../admitted.ts'
import type { HubContext } from '../peer.ts'
import { MessagePeer } from './message-peer.ts'

/** Creates the peer for a tunnel that carries datagrams, framed or as messages. */
export function createPacketPeer (admitted: Admitted, tunnel: Tunnel, router: PacketRouter, hub: HubContext): PacketPeer {
  const { messages, framing } = admitted
  if (messages !== undefined) return new MessagePeer(admitted, messages, tunnel, router, hub)
  return new FramedPeer(admitted, framing!, tunnel, router, hub)
}
