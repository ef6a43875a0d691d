import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import { Mailbox } from './mailbox.ts'

/** A local UDP socket, as WireGuard's, until the test ends. */
export class UdpPeer {
  readonly received = new Mailbox<Buffer>()
  readonly socket: Socket
  #to: { port: number, address: string } = { port: 0, address: '' }

  constructor (t: Test, type: 'udp4' | 'udp6') {
    this.socket = createSocket(type)
    this.socket.on('message', (datagram) => this.received.push(datagram))
    t.teardown(() => this.socket.close())
  }

  /** Where it sends to from now on. */
  to ({ port, address }: AddressInfo): this {
    this.#to = { port, address }
    return this
  }

  get address (): string {
    const { address, port } = this.socket.address()
    return `${address.includes(':') ? `[${address}]` : address}:${port}`
  }

  send (datagram: Buffer | string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.send(datagram, this.#to.port, this.#to.address, (error) => error ? reject(error) : resolve())
    })
  }
}

/** A peer bound to an address, 127.0.0.1 if none is given, and a port, a free one if none is given. */
export async function udpPeer (t: Test, address: string = '127.0.0.1', port = 0): Promise<UdpPeer> {
  const peer = new UdpPeer(t, address.includes(':') ? 'udp6' : 'udp4')
  peer.socket.bind(port, address)
  await once(peer.socket, 'listening')
  return peer
}
