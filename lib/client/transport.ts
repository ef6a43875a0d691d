import { Socket, connect as connectTcp } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { encodeProxyHeader, type ProxiedConnection } from '../proxy-protocol.ts'
import { prepareTcp } from '../tcp-socket.ts'
import { connectError, describeError } from './describe-error.ts'
import { optionError, type ConnectPlan } from './options.ts'

/**
 * Begins to connect: over TCP or TLS, or the user's way. With `proxyProtocol` it is TCP in any case, and
 * `sendProxyHeader` makes the transport of it as soon as it is connected.
 * @throws FST_RELAY_CONNECT, FST_RELAY_CLIENT_OPTION: `createConnection` threw, or returned no stream
 */
export function openTransport (plan: ConnectPlan): Duplex {
  const { hostname: host, port, secure, proxyProtocol, createConnection } = plan
  if (createConnection !== undefined) return guarded(userTransport(createConnection))
  return secure && proxyProtocol === undefined ? startTls(plan) : guarded(connectTcp({ host, port }))
}

/** Sends the PROXY header on a new connection, with the addresses of its two ends, and begins TLS where it is wanted. */
export function sendProxyHeader (plan: ConnectPlan, socket: Socket): Socket {
  socket.write(encodeProxyHeader(plan.proxyProtocol!, connectionOf(socket)))
  return plan.secure ? startTls(plan, { socket }) : socket
}

function startTls ({ httpVersion, tls, servername, hostname: host, port }: ConnectPlan, over: ConnectionOptions = {}): TLSSocket {
  const name = servername === undefined ? {} : { servername }
  return guarded(connectTls({ ...tls, ...name, host, port, ...over, ALPNProtocols: [httpVersion === 2 ? 'h2' : 'http/1.1'] }))
}

function userTransport (createConnection: () => Duplex): Duplex {
  let transport
  try {
    transport = createConnection()
  } catch (error) {
    throw connectError(`createConnection threw: ${describeError(error)}`, error)
  }
  if (typeof transport?.write !== 'function' || typeof transport.pipe !== 'function') {
    throw optionError('createConnection', 'a function that returns a Duplex', transport)
  }
  return transport
}

function guarded<T extends Duplex> (transport: T): T {
  // From the first moment to the last: a reset that nobody listens to would end the process.
  transport.on('error', () => {})
  if (transport instanceof Socket) prepareTcp(transport)
  return transport
}

/** Undefined if the connection is gone already. */
function connectionOf ({ localAddress, localPort, remoteAddress, remotePort }: Socket): ProxiedConnection | undefined {
  if (localAddress === undefined || remoteAddress === undefined) return
  return { source: { address: localAddress, port: localPort! }, destination: { address: remoteAddress, port: remotePort! } }
}
