import { isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ProxyProtocolVersion } from '../../util/proxy-header.ts'
import type { TransportOptions } from './connect-options.ts'
import { clientOptionError } from './client-option-error.ts'

/** Checks the options that say how the connection to the relay, or to the proxy, is made. */

export function checkCreateConnection ({ createConnection }: TransportOptions): (() => Duplex | Promise<Duplex>) | undefined {
  if (createConnection !== undefined && typeof createConnection !== 'function') {
    throw clientOptionError('createConnection', 'a function', createConnection)
  }
  return createConnection
}

export function checkProxyProtocol ({ proxyProtocol, createConnection }: TransportOptions): ProxyProtocolVersion | undefined {
  if (proxyProtocol === undefined) return
  if (proxyProtocol !== 1 && proxyProtocol !== 2) throw clientOptionError('proxyProtocol', '1 or 2', proxyProtocol)
  if (createConnection !== undefined) {
    throw clientOptionError('proxyProtocol', 'absent with createConnection, which sends the header itself', proxyProtocol)
  }
  return proxyProtocol
}

export function checkLocalAddress ({ localAddress, createConnection }: TransportOptions): string | undefined {
  if (localAddress === undefined) return
  if (typeof localAddress !== 'string' || isIP(localAddress) === 0) {
    throw clientOptionError('localAddress', 'an IP address of this machine', localAddress)
  }
  if (createConnection !== undefined) throw clientOptionError('localAddress', 'absent with createConnection, which connects itself', localAddress)
  return localAddress
}

export function checkSignal ({ signal }: TransportOptions): AbortSignal | undefined {
  if (signal !== undefined && !(signal instanceof AbortSignal)) throw clientOptionError('signal', 'an AbortSignal', signal)
  return signal
}
