import { createSocket, type Socket } from 'node:dgram'
import { isIP } from 'node:net'

/**
 * The size of the receive buffer in bytes. With the system's default, a burst of WireGuard datagrams overflows the socket while
 * the process is busy. Linux caps the size at net.core.rmem_max. Other systems reject a size above their limit.
 */
const RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
/** The maximum number of bytes that wait in a socket when the network is slower than the tunnel. */
const SEND_QUEUE_BYTES = 4 * 1024 * 1024

/** The reason a datagram was not sent: it is larger than the network allows, the send queue is full, or any other error. */
export type UdpSendFault = 'udp-too-large' | 'udp-queue-full' | 'udp-error'

/** Creates a socket for one IP version. It sends to IP addresses only, not to host names. */
export function createUdpSocket (version: 4 | 6): Socket {
  return createSocket({
    type: version === 6 ? 'udp6' : 'udp4',
    // This keeps IPv4-mapped IPv6 addresses out of sender addresses.
    ipv6Only: version === 6,
    // Node's own lookup would delay each datagram to the next tick.
    lookup: (address, _options, callback) => callback(null, address, isIP(address))
  })
}

/** Enlarges the receive buffer for bursts. The socket must be bound. */
export function askForReceiveBuffer (socket: Socket): void {
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
  } catch {
    // The size is above this system's limit, so the default stays.
  }
}

/** Returns true if the socket's send queue is over its limit, so that the next datagram must be dropped. */
export function isSendQueueFull (socket: Socket): boolean {
  return socket.getSendQueueSize() > SEND_QUEUE_BYTES
}

export function sendFault (error: Error): UdpSendFault {
  return (error as NodeJS.ErrnoException).code === 'EMSGSIZE' ? 'udp-too-large' : 'udp-error'
}
