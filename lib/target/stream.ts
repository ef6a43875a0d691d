import { connect, type Socket } from 'node:net'
import { errors } from '../errors.ts'
import { attemptTimeout } from '../tcp-socket.ts'
import type { Target } from './target.ts'

/**
 * Connects to a `tcp:` or `unix:` target.
 * @param timeout milliseconds, name resolution included
 * @returns a connection that nobody reads yet: what the target sends first waits in it
 * @throws FST_RELAY_TARGET_UNREACHABLE with its `cause`, FST_RELAY_TARGET_TIMEOUT
 */
export async function connectStream (target: Exclude<Target, { protocol: 'udp' }>, timeout: number): Promise<Socket> {
  const socket = connect({ ...target, allowHalfOpen: true, noDelay: true, autoSelectFamilyAttemptTimeout: attemptTimeout(timeout) })
  return await new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new errors.FST_RELAY_TARGET_TIMEOUT(timeout))
    }, timeout)
    socket.once('connect', () => {
      clearTimeout(timer)
      resolve(socket)
    })
    // Stays: between here and its attachment to a tunnel, nobody else listens.
    socket.on('error', (cause) => {
      clearTimeout(timer)
      reject(new errors.FST_RELAY_TARGET_UNREACHABLE({ cause }))
    })
  })
}
