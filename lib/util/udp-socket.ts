import { createSocket, type Socket } from 'node:dgram'
import { isIP } from 'node:net'

/**
 * What the system shall keep until it is read, in bytes: with its default, a burst of WireGuard's overflows the
 * socket while the process does something else. Linux gives what net.core.rmem_max allows, others all or nothing.
 */
const RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
/** What may wait in a socket, in bytes, when the network behind it is slower than the tunnel. */
const SEND_QUEUE_BYTES = 4 * 1024 * 1024

/** Why the system did not take a datagram: it is too large for the network there, too many wait already, anything else. */
export type UdpSendFault = 'udp-too-large' | 'udp-queue-full' | 'udp-error'

/** A socket for one IP version, which sends to addresses only. */
export function createUdpSocket (version: 4 | 6): Socket {
  return createSocket({
    type: version === 6 ? 'udp6' : 'udp4',
    // Then a sender's address is never an IPv4 one in IPv6 clothing.
    ipv6Only: version === 6,
    // Node's own lookup would put each datagram off to the next tick.
    lookup: (address, _options, callback) => callback(null, address, isIP(address))
  })
}

/** Asks for room for bursts; the socket must be bound. */
export function askForReceiveBuffer (socket: Socket): void {
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
  } catch {
    // Above this system's limit: its default stays.
  }
}

/** Whether so much waits in the socket already that another datagram is to be dropped. */
export function isSendQueueFull (socket: Socket): boolean {
  return socket.getSendQueueSize() > SEND_QUEUE_BYTES
}

export function sendFault (error: Error): UdpSendFault {
  return (error as NodeJS.ErrnoException).code === 'EMSGSIZE' ? 'udp-too-large' : 'udp-error'
}
