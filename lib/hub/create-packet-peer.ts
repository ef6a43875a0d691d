import type { Duplex } from 'node:stream'
import { FramedPeer } from './framed-peer.ts'
import type { PacketPeer, PacketRouter } from './packet-peer.ts'
import type { Admitted, HubContext } from './peer.ts'
import { WebSocketPeer } from './websocket-peer.ts'

/** The peer for a tunnel that carries datagrams in the way that admission has found. */
export function createPacketPeer (admitted: Admitted, tunnel: Duplex, router: PacketRouter, hub: HubContext): PacketPeer {
  const { webSocket, framing } = admitted
  if (webSocket !== undefined) return new WebSocketPeer(admitted, webSocket, tunnel, router, hub)
  return new FramedPeer(admitted, framing!, tunnel, router, hub)
}
