import { createSocket, type Socket, type RemoteInfo } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { isIP, type AddressInfo } from 'node:net'
import { isLoopback, type HostPort } from './udp-address.ts'

/**
 * What the system shall keep until it is read, in bytes: with its default, a burst of WireGuard's overflows the
 * socket while the process does something else. Linux gives what net.core.rmem_max allows, others all or nothing.
 */
const RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
/** What may wait in the socket, in bytes, when the network behind it is slower than the relay. */
const SEND_QUEUE_BYTES = 4 * 1024 * 1024

/**
 * Why a datagram did not pass the UDP port. From the local side: `not-loopback` (its sender is neither on this
 * machine nor the forward address). To the local side: `no-return-address` (nobody has sent anything yet),
 * `udp-too-large` (for the network there), `udp-queue-full`, `udp-error`.
 */
export type UdpDropReason = 'not-loopback' | 'no-return-address' | 'udp-too-large' | 'udp-queue-full' | 'udp-error'

export interface UdpPortOptions {
  listen: HostPort
  /** Where datagrams go; without it to the last sender. */
  forward: HostPort | undefined
  onDatagram: (datagram: Buffer) => void
  onDrop: (reason: UdpDropReason) => void
}

/** The local side of a sidecar: one UDP socket, and whom it talks to. */
export class UdpPort {
  readonly #options: UdpPortOptions
  readonly #socket: Socket
  #destination: { address: string, port: number } | undefined
  #closed: Promise<void> | undefined

  constructor (options: UdpPortOptions) {
    this.#options = options
    const ipv6 = isIP(options.listen.host) === 6
    this.#socket = createSocket({
      type: ipv6 ? 'udp6' : 'udp4',
      // Then a sender's address is never an IPv4 one in IPv6 clothing.
      ipv6Only: ipv6,
      // Only addresses are sent to; Node's own lookup would put each datagram off to the next tick.
      lookup: (address, _options, callback) => callback(null, address, isIP(address))
    })
  }

  /**
   * Binds the port; rejects when that, or finding the forward address, fails.
   * @returns the address bound
   */
  async open (): Promise<AddressInfo> {
    const { listen, forward } = this.#options
    const socket = this.#socket
    if (forward !== undefined) {
      const { address } = await lookup(forward.host, isIP(listen.host))
      this.#destination = { address, port: forward.port }
    }
    const listening = once(socket, 'listening')
    socket.bind({ address: listen.host, port: listen.port, exclusive: true })
    await listening
    askForReceiveBuffer(socket)
    // Some systems report a datagram that nobody received as an error of the socket, which goes on all the same.
    socket.on('error', () => this.#options.onDrop('udp-error'))
    socket.on('message', (datagram, sender) => this.#receive(datagram, sender))
    return socket.address()
  }

  /** Sends to the local side. The memory must not be written to again. */
  send (datagram: Buffer): void {
    if (this.#destination === undefined) return this.#options.onDrop('no-return-address')
    if (this.#socket.getSendQueueSize() > SEND_QUEUE_BYTES) return this.#options.onDrop('udp-queue-full')
    const { address, port } = this.#destination
    this.#socket.send(datagram, port, address, (error) => {
      if (error === null) return
      this.#options.onDrop((error as NodeJS.ErrnoException).code === 'EMSGSIZE' ? 'udp-too-large' : 'udp-error')
    })
  }

  /** Resolves when the socket is closed; may be called again. */
  close (): Promise<void> {
    this.#closed ??= new Promise((resolve) => { this.#socket.close(resolve) })
    return this.#closed
  }

  #receive (datagram: Buffer, { address, port }: RemoteInfo): void {
    if (!isLoopback(address) && !(this.#options.forward !== undefined && address === this.#destination?.address)) {
      return this.#options.onDrop('not-loopback')
    }
    // Nothing can be sent to port 0, from which only a forged datagram comes.
    if (this.#options.forward === undefined && port !== 0) this.#destination = { address, port }
    this.#options.onDatagram(datagram)
  }
}

function askForReceiveBuffer (socket: Socket): void {
  try {
    socket.setRecvBufferSize(RECEIVE_BUFFER_BYTES)
  } catch {
    // Above this system's limit: its default stays.
  }
}
