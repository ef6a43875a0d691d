import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from 'node:tls'
import { encodeProxyHeader, type ProxiedConnection } from '../../util/proxy-header.ts'
import { httpVersions } from '../../util/http-version.ts'
import { dialled } from './address-memory.ts'
import { connectError } from '../connect-error.ts'
import { describeError } from '../describe-error.ts'
import { clientOptionError } from '../options/client-option-error.ts'
import type { ConnectPlan } from '../options/connect-plan.ts'
import { connectThroughProxy } from './proxy.ts'
import { guarded, tcpOptions } from './client-tcp.ts'
import { keepCertificate } from './transport-fault.ts'

/**
 * Opens a transport to the relay: over TCP or TLS, through a proxy, or by `createConnection`. It may still be connecting.
 * @param signal aborts connecting. It does not abort the promise of `createConnection`: the caller destroys what that resolves with.
 * @throws FST_RELAY_CONNECT, FST_RELAY_PROXY
 * @throws FST_RELAY_CLIENT_OPTION `createConnection` did not return a stream
 */
export async function openTransport (plan: ConnectPlan, signal: AbortSignal): Promise<Duplex> {
  const { createConnection, proxy, proxyProtocol, secure } = plan
  if (createConnection !== undefined) return guarded(await userTransport(createConnection))
  const isDirect = proxy === undefined && proxyProtocol === undefined
  if (isDirect) return secure ? dialled(startTls(plan, tcpOptions(plan, plan.hostname, plan.port)), plan.hostname) : startTcp(plan)
  const socket = proxy === undefined ? await connected(startTcp(plan), signal) : await connectThroughProxy(plan, proxy, signal)
  if (proxyProtocol !== undefined) socket.write(encodeProxyHeader(proxyProtocol, connectionOf(socket)))
  return secure ? startTls(plan, { host: plan.hostname, port: plan.port, socket }) : socket
}

function startTcp (plan: ConnectPlan): Socket {
  return guarded(dialled(connectTcp(tcpOptions(plan, plan.hostname, plan.port)), plan.hostname))
}

function startTls ({ httpVersion, tls, servername }: ConnectPlan, over: ConnectionOptions): TLSSocket {
  const name = servername === undefined ? {} : { servername }
  const socket = connectTls({ ...tls, ...name, ...over, ALPNProtocols: [httpVersions[httpVersion].alpn] })
  keepCertificate(socket)
  return guarded(socket)
}

async function connected (socket: Socket, signal: AbortSignal): Promise<Socket> {
  try {
    await once(socket, 'connect', { signal })
    return socket
  } catch (error) {
    socket.destroy()
    throw connectError(describeError(error), error)
  }
}

async function userTransport (createConnection: () => Duplex | Promise<Duplex>): Promise<Duplex> {
  let transport
  try {
    transport = await createConnection()
  } catch (error) {
    throw connectError(`createConnection threw: ${describeError(error)}`, error)
  }
  if (typeof transport?.write !== 'function' || typeof transport.pipe !== 'function') {
    throw clientOptionError('createConnection', 'a function that returns a Duplex, or a promise of one', transport)
  }
  return transport
}

/** Undefined if the connection is already closed. */
function connectionOf ({ localAddress, localPort, remoteAddress, remotePort }: Socket): ProxiedConnection | undefined {
  if (localAddress === undefined || remoteAddress === undefined) return
  return { source: { address: localAddress, port: localPort! }, destination: { address: remoteAddress, port: remotePort! } }
}
