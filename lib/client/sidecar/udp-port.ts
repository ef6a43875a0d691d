import type { Socket, RemoteInfo } from 'node:dgram'
import { lookup } from 'node:dns/promises'
import { once } from 'node:events'
import { isIP, type AddressInfo } from 'node:net'
import { isLoopback, type HostPort } from '../../util/host-port.ts'
import { askForReceiveBuffer, createUdpSocket, isSendQueueFull, sendFault, type UdpSendFault } from '../../util/udp-socket.ts'

/**
 * Why a datagram was dropped at the UDP port. From the local side: `not-loopback` (the sender is neither on this machine nor
 * the forward address). To the local side: `no-return-address` (nothing was received there yet), `udp-too-large` (for the
 * network there), `udp-queue-full`, `udp-error`.
 */
export type UdpDropReason = 'not-loopback' | 'no-return-address' | UdpSendFault

/** A name in `forward` is looked up again when nothing has come from its address for this long, in milliseconds. */
const LOOKUP_MS = 10_000

export interface UdpPortOptions {
  listen: HostPort
  /** Where datagrams go; undefined: to the last sender. */
  forward: HostPort | undefined
  onDatagram: (datagram: Buffer) => void
  /** A datagram was sent to the local side. */
  onSent: () => void
  onDrop: (reason: UdpDropReason) => void
}

/** The local side of a sidecar: a UDP socket, and the address that it sends to. */
export class UdpPort {
  readonly #options: UdpPortOptions
  readonly #socket: Socket
  #destination: { address: string, port: number } | undefined
  #closed: Promise<void> | undefined
  /** The name in `forward`, which is looked up again from time to time. */
  readonly #name: string | undefined
  /** When something last came from the forward address, or its name was last looked up. */
  #confirmedAt = 0

  constructor (options: UdpPortOptions) {
    this.#options = options
    const { forward } = options
    this.#name = forward !== undefined && isIP(forward.host) === 0 ? forward.host : undefined
    this.#socket = createUdpSocket(isIP(options.listen.host) === 6 ? 6 : 4)
  }

  /**
   * Binds the port. Rejects when that fails, or when the forward address is not found.
   * @returns the bound address
   */
  async open (): Promise<AddressInfo> {
    const { listen, forward } = this.#options
    const socket = this.#socket
    if (forward !== undefined) {
      const { address } = await lookup(forward.host, isIP(listen.host))
      this.#destination = { address, port: forward.port }
      this.#confirmedAt = performance.now()
    }
    const listening = once(socket, 'listening')
    socket.bind({ address: listen.host, port: listen.port, exclusive: true })
    await listening
    askForReceiveBuffer(socket)
    // Some systems report an undelivered datagram as an error of the socket. The socket stays usable.
    socket.on('error', () => this.#options.onDrop('udp-error'))
    socket.on('message', (datagram, sender) => this.#receive(datagram, sender))
    return socket.address()
  }

  /** Sends to the local side. The caller must not write to this memory again. */
  send (datagram: Buffer): void {
    if (this.#destination === undefined) return this.#options.onDrop('no-return-address')
    if (isSendQueueFull(this.#socket)) return this.#options.onDrop('udp-queue-full')
    if (this.#name !== undefined) this.#lookUpAgain()
    const { address, port } = this.#destination
    this.#socket.send(datagram, port, address, (error) => {
      if (error === null) this.#options.onSent()
      else this.#options.onDrop(sendFault(error))
    })
  }

  /** Resolves when the socket is closed; can be called more than once. */
  close (): Promise<void> {
    this.#closed ??= new Promise((resolve) => { this.#socket.close(resolve) })
    return this.#closed
  }

  /** A restarted container may have another address: then nothing comes from the old one any more. */
  #lookUpAgain (): void {
    const now = performance.now()
    if (now - this.#confirmedAt < LOOKUP_MS) return
    this.#confirmedAt = now
    const { listen, forward } = this.#options
    lookup(this.#name!, isIP(listen.host)).then(
      ({ address }) => { this.#destination = { address, port: forward!.port } },
      () => {} // keep the old address; the next lookup follows within 10 s
    )
  }

  #receive (datagram: Buffer, { address, port }: RemoteInfo): void {
    if (this.#name !== undefined && address === this.#destination?.address) this.#confirmedAt = performance.now()
    if (!isLoopback(address) && !(this.#options.forward !== undefined && address === this.#destination?.address)) {
      return this.#options.onDrop('not-loopback')
    }
    // A datagram from port 0 is forged, and port 0 cannot be sent to.
    if (this.#options.forward === undefined && port !== 0) this.#destination = { address, port }
    this.#options.onDatagram(datagram)
  }
}
