import type { Duplex } from 'node:stream'
import type { Encoding } from '../../framing/framing.ts'
import { WaitQueue, type WaitCapacity } from '../../util/wait-queue.ts'
import { classify, isHandshake } from '../../framing/wireguard.ts'

/** What waits for a relay whose connection is blocked, at most. The relay's own is in lib/hub/packet/send-queue.ts. */
const CAPACITY: WaitCapacity = { datagrams: 512, bytes: 256 * 1024 }

/** Memory is allocated in slabs of this size. Staged bytes are written at the latest when a slab is full. */
const SLAB_BYTES = 64 * 1024
/** This many staged bytes are written at once, without waiting for the end of the turn. */
const WRITE_BYTES = 32 * 1024

export interface SenderOptions {
  /** A datagram has been framed. */
  onSent: (bytes: number) => void
  /** This many datagrams were dropped because the socket stays blocked. */
  onOverflow: (count: number) => void
  /** Bytes have been handed to the tunnel. */
  onWrite: (bytes: number) => void
}

/**
 * Writes datagrams to a tunnel. Datagrams of one turn of the event loop leave in as few writes as possible. While the
 * tunnel is blocked, they wait in a bounded queue.
 */
export class Sender {
  readonly #tunnel: Duplex
  readonly #framing: Encoding
  readonly #options: SenderOptions
  readonly #queue = new WaitQueue(CAPACITY)
  // slab[#start..#end) is staged. The bytes before #start belong to the tunnel, which may still hold them: they are never
  // written to again.
  #slab = Buffer.alloc(0)
  #start = 0
  #end = 0
  #owedPong: Buffer | undefined
  #blocked = false
  #flush: NodeJS.Immediate | undefined

  constructor (tunnel: Duplex, framing: Encoding, options: SenderOptions) {
    this.#tunnel = tunnel
    this.#framing = framing
    this.#options = options
    tunnel.on('drain', () => this.#unblock())
  }

  /** Takes a copy of the datagram, 1 to 65535 bytes; returns false if it had to be dropped. */
  send (datagram: Buffer): boolean {
    if (!this.#blocked) {
      this.#stage(datagram)
      return true
    }
    const copy = Buffer.from(datagram)
    const isUrgent = isHandshake(classify(copy, 0, copy.length))
    const dropped = this.#queue.add(copy, [copy.length], isUrgent)
    if (dropped > 0) this.#options.onOverflow(dropped)
    // If the queue holds no data now, it dropped the new datagram.
    return isUrgent || !this.#queue.hasNoData
  }

  /** Answers a ping. Only the latest answer is kept, so pings cannot fill the memory. */
  pong (frame: Buffer): void {
    this.#owedPong = frame
    this.#schedule()
  }

  /** Sends a keepalive, unless the tunnel is blocked: then bytes are waiting to be sent anyway. */
  keepalive (frame: Buffer): void {
    if (this.#blocked) return
    this.#stageBytes(frame)
    this.#schedule()
  }

  /** Writes staged bytes for the last time; returns how many queued datagrams are lost. */
  finish (): number {
    clearImmediate(this.#flush)
    this.#write()
    this.#blocked = true
    return this.#queue.length
  }

  #stage (datagram: Buffer): void {
    this.#reserve(datagram.length + this.#framing.maxOverhead)
    this.#end = this.#framing.encode(this.#slab, this.#end, datagram, 0, datagram.length, false)
    this.#options.onSent(datagram.length)
    if (this.#end - this.#start >= WRITE_BYTES) this.#write()
    else this.#schedule()
  }

  #stageBytes (bytes: Buffer): void {
    this.#reserve(bytes.length)
    this.#end += bytes.copy(this.#slab, this.#end)
  }

  #reserve (length: number): void {
    if (this.#slab.length - this.#end >= length) return
    this.#write()
    this.#slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, length))
    this.#start = this.#end = 0
  }

  #schedule (): void {
    this.#flush ??= setImmediate(() => {
      this.#flush = undefined
      if (!this.#blocked) this.#writeAll()
    })
  }

  #writeAll (): void {
    if (this.#owedPong !== undefined) {
      this.#stageBytes(this.#owedPong)
      this.#owedPong = undefined
    }
    this.#write()
  }

  #write (): void {
    if (this.#start === this.#end) return
    const bytes = this.#slab.subarray(this.#start, this.#end)
    this.#start = this.#end
    this.#options.onWrite(bytes.length)
    if (!this.#tunnel.write(bytes)) this.#blocked = true
  }

  #unblock (): void {
    if (this.#tunnel.writableEnded) return
    this.#blocked = false
    this.#writeAll()
    while (!this.#blocked) {
      const next = this.#queue.take(0)
      if (next === undefined) return
      this.#stage(next.bytes)
    }
  }
}
