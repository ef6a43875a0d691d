import { isIP, Socket, type TcpNetConnectOpts } from 'node:net'
import type { Duplex } from 'node:stream'
import { attemptTimeout, prepareTcp } from '../../util/tcp-socket.ts'
import { lookupRelay } from './address-memory.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'

/** The options for a TCP connection to the relay, or to the proxy. */
export function tcpOptions ({ localAddress, handshakeTimeout }: ConnectPlan, host: string, port: number): TcpNetConnectOpts {
  return {
    host,
    port,
    lookup: lookupRelay,
    autoSelectFamilyAttemptTimeout: attemptTimeout(handshakeTimeout),
    // With a local address, Node takes the first address of the name, even one of the other family.
    ...(localAddress === undefined ? {} : { localAddress, family: isIP(localAddress) })
  }
}

/** Adds an `error` listener that does nothing, so that a reset never ends the process. */
export function guarded<T extends Duplex> (transport: T): T {
  transport.on('error', () => {})
  if (transport instanceof Socket) prepareTcp(transport)
  return transport
}
