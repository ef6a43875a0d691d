import { isIP, Socket, type TcpNetConnectOpts } from 'node:net'
import type { Duplex } from 'node:stream'
import { attemptTimeout, prepareTcp } from '../../util/tcp-socket.ts'
import { lookupRelay } from './address-memory.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'

/** How a TCP connection is opened, to the relay or to a proxy before it. */
export function tcpOptions ({ localAddress, handshakeTimeout }: ConnectPlan, host: string, port: number): TcpNetConnectOpts {
  return {
    host,
    port,
    lookup: lookupRelay,
    autoSelectFamilyAttemptTimeout: attemptTimeout(handshakeTimeout),
    // With a local address, Node takes the first address of the name, whatever its family.
    ...(localAddress === undefined ? {} : { localAddress, family: isIP(localAddress) })
  }
}

/** Keeps a reset that nobody listens to from ending the process, from the first moment to the last. */
export function guarded<T extends Duplex> (transport: T): T {
  transport.on('error', () => {})
  if (transport instanceof Socket) prepareTcp(transport)
  return transport
}
