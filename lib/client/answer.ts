import type { IncomingHttpHeaders } from 'node:http'
import { acceptValueOf } from '../admission/websocket-handshake.ts'
import { errors } from '../errors.ts'
import type { DatagramFraming } from '../framing/framing.ts'
import { framingsByName } from '../framing/framings.ts'
import { MAX_DATAGRAM_SIZE } from '../framing/wireguard.ts'
import { webSocketFraming } from './connection/client-websocket.ts'
import type { ConnectionFraming } from './connection/connection-framing.ts'
import { headerText } from './header-text.ts'
import type { ConnectPlan, WebSocketPlan } from './options/connect-plan.ts'

/** What the answer says about a tunnel of datagrams. */
export interface DatagramTerms {
  framing: ConnectionFraming
  /** Limits of both directions, in bytes. */
  maxPacketSize: { send: number, receive: number }
}

/**
 * Reads the terms from the answer that opened a tunnel; undefined for a tunnel of bytes.
 * @throws FST_RELAY_ANSWER
 */
export function readTerms (plan: ConnectPlan, headers: IncomingHttpHeaders): DatagramTerms | undefined {
  const { framings, maxPacketSize, webSocket } = plan
  if (webSocket !== undefined) checkWebSocket(webSocket, headers)
  if (framings === 'raw') return
  return {
    framing: webSocket === undefined ? chosenFraming(framings, headers['spanza-framing']) : webSocketFraming,
    maxPacketSize: { send: readMaxPacket(headers['spanza-max-packet']), receive: maxPacketSize }
  }
}

function chosenFraming (framings: readonly DatagramFraming[], answered: string | string[] | undefined): ConnectionFraming {
  if (answered === undefined) throw errors.FST_RELAY_ANSWER('a proxy removed Spanza-Framing, or the server is older')
  const chosen = framings.find((name) => name === String(answered).toLowerCase())
  if (chosen === undefined) throw errors.FST_RELAY_ANSWER(`it chose the framing "${headerText(answered)}", which was not asked for`)
  return framingsByName[chosen]
}

/** The checks that a client has to make (RFC 6455, section 4.1). */
function checkWebSocket ({ key, subprotocol }: WebSocketPlan, headers: IncomingHttpHeaders): void {
  const accept = headers['sec-websocket-accept']
  if (key !== undefined && accept !== acceptValueOf(key)) {
    throw errors.FST_RELAY_ANSWER(accept === undefined ? 'a 101 without Sec-WebSocket-Accept' : 'Sec-WebSocket-Accept is not the answer to this key')
  }
  const chosen = headers['sec-websocket-protocol']
  if (chosen === undefined) throw errors.FST_RELAY_ANSWER(`a WebSocket without the subprotocol ${subprotocol}: it is no relay's, or a proxy removed that`)
  if (chosen !== subprotocol) throw errors.FST_RELAY_ANSWER(`a WebSocket with the subprotocol "${headerText(chosen)}", which was not asked for`)
  const extensions = headers['sec-websocket-extensions']
  if (extensions !== undefined) throw errors.FST_RELAY_ANSWER(`a WebSocket with the extension "${headerText(extensions)}", which was not asked for`)
}

function readMaxPacket (value: string | string[] | undefined): number {
  if (value === undefined) return MAX_DATAGRAM_SIZE
  const bytes = /^\d{1,5}$/.test(String(value)) ? Number(value) : 0
  if (bytes < 1 || bytes > MAX_DATAGRAM_SIZE) throw errors.FST_RELAY_ANSWER(`"Spanza-Max-Packet: ${headerText(value)}"`)
  return bytes
}
