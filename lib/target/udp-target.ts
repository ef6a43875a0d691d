import type { Socket } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { errors } from '../errors.ts'
import { askForReceiveBuffer, createUdpSocket, isSendQueueFull, sendFault, type UdpSendFault } from '../util/udp-socket.ts'
import type { DatagramTarget } from '../hub/admitted.ts'
import type { HostPort } from '../util/host-port.ts'

/** A UDP socket of one tunnel's own, connected to its target: what comes from elsewhere does not arrive. */
export class UdpTarget implements DatagramTarget {
  readonly carries = 'datagrams'
  readonly #socket: Socket
  #isClosed = false

  private constructor (socket: Socket) {
    this.#socket = socket
    // ICMP may report something before anybody listens.
    socket.on('error', () => {})
  }

  /**
   * @param timeout milliseconds for the name to be resolved; names are resolved anew for each tunnel
   * @throws FST_RELAY_TARGET_UNREACHABLE with its `cause`, FST_RELAY_TARGET_TIMEOUT
   */
  static async open ({ host, port }: HostPort, timeout: number): Promise<UdpTarget> {
    let cause: unknown
    try {
      const addresses = await within(timeout, lookup(host, { all: true }))
      for (const { address, family } of addresses) {
        const socket = createUdpSocket(family as 4 | 6)
        try {
          socket.connect(port, address)
          await once(socket, 'connect')
          askForReceiveBuffer(socket)
          return new UdpTarget(socket)
        } catch (error) {
          // There is no route to this one.
          socket.close()
          cause = error
        }
      }
    } catch (error) {
      if (error instanceof errors.FST_RELAY_TARGET_TIMEOUT) throw error
      cause = error
    }
    throw new errors.FST_RELAY_TARGET_UNREACHABLE({ cause })
  }

  receive (onDatagram: (datagram: Buffer) => void, onError: (code: string) => void): void {
    this.#socket.on('message', onDatagram)
    // Also what ICMP reports: a server that is down now may be up with the next datagram.
    this.#socket.on('error', (error: NodeJS.ErrnoException) => onError(error.code ?? error.message))
  }

  send (datagram: Buffer, onSent: (fault: UdpSendFault | undefined) => void): void {
    if (isSendQueueFull(this.#socket)) return onSent('udp-queue-full')
    this.#socket.send(datagram, (error) => onSent(error === null ? undefined : sendFault(error)))
  }

  close (): void {
    // Node throws when it is told twice.
    if (this.#isClosed) return
    this.#isClosed = true
    this.#socket.close()
  }
}

async function within<Result> (timeout: number, promise: Promise<Result>): Promise<Result> {
  let timer
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new errors.FST_RELAY_TARGET_TIMEOUT(timeout)), timeout)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
