import { connect } from 'node:net'
import { errors } from '../../errors.ts'
import { attemptTimeout } from '../../util/tcp-socket.ts'
import { socketTunnel } from './socket-tunnel.ts'
import type { Tunnel } from '../tunnel.ts'

/** The address of a TCP or unix server. */
export type StreamAddress = { host: string, port: number } | { path: string }

/**
 * Connects to a TCP or unix server.
 * @param timeout milliseconds, name resolution included
 * @returns a connection that is not read yet: bytes from the other side wait in it
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
    // Kept after connecting: the socket has no other error listener until it is attached to a tunnel.
    socket.on('error', (cause) => {
      clearTimeout(timer)
      reject(new errors.FST_RELAY_TARGET_UNREACHABLE({ cause }))
    })
  })
}
