import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { readTerms } from '../answer.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'
import { RelayConnection } from '../connection/relay-connection.ts'
import { webSocketStream } from '../connection/client-websocket.ts'

/**
 * Turns a stream that the relay has accepted into what the plan asks for.
 * @param headers those of the answer
 * @throws FST_RELAY_ANSWER
 */
export function openTunnel (plan: ConnectPlan, headers: IncomingHttpHeaders, tunnel: Duplex): RelayConnection | Duplex {
  const terms = readTerms(plan, headers)
  if (terms !== undefined) return new RelayConnection(tunnel, { ...plan, ...terms })
  return plan.webSocket === undefined ? tunnel : webSocketStream(tunnel)
}
