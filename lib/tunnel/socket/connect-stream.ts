import { connect } from 'node:net'
import { errors } from '../../errors.ts'
import { attemptTimeout } from '../../util/tcp-socket.ts'
import { socketTunnel } from './socket-tunnel.ts'
import type { Tunnel } from '../tunnel.ts'

/** Where to connect to. */
export type StreamAddress = { host: string, port: number } | { path: string }

/**
 * Connects to a TCP or unix server.
 * @param timeout milliseconds, name resolution included
 * @returns a connection that nobody reads yet: what the other side sends first waits in it
 * @throws FST_RELAY_TARGET_UNREACHABLE with its `cause`, FST_RELAY_TARGET_TIMEOUT
 */
export async function connectStream (address: StreamAddress, timeout: number): Promise<Tunnel> {
  const socket = connect({ ...address, allowHalfOpen: true, noDelay: true, autoSelectFamilyAttemptTimeout: attemptTimeout(timeout) })
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new errors.FST_RELAY_TARGET_TIMEOUT(timeout))
    }, timeout)
    socket.once('connect', () => {
      clearTimeout(timer)
      resolve(socketTunnel(socket))
    })
    // Stays: between here and its attachment to a tunnel, nobody else listens.
    socket.on('error', (cause) => {
      clearTimeout(timer)
      reject(new errors.FST_RELAY_TARGET_UNREACHABLE({ cause }))
    })
  })
}
