import { Duplex } from 'node:stream'
import { StreamTunnel } from '../../lib/tunnel/stream-tunnel.ts'

/** A tunnel whose writes can be seen one by one, and are only taken when the test says so. */
export class FakeTunnel extends Duplex {
  readonly writes: Buffer[] = []
  /** What the hub is given. */
  readonly tunnel = new StreamTunnel(this)
  #isOpen: boolean
  #taken: (() => void) | undefined

  /** @param isOpen whether every write is taken at once; else each waits for `takeOne` */
  constructor ({ isOpen = true, highWaterMark = 1 } = {}) {
    super({ highWaterMark, read () {} })
    this.#isOpen = isOpen
    this.on('error', () => {})
  }

  override _write (chunk: Buffer, _encoding: string, callback: () => void): void {
    this.writes.push(chunk)
    if (this.#isOpen) callback()
    else this.#taken = callback
  }

  /** Takes the write that is waiting, and nothing that comes after it. */
  async takeOne (): Promise<void> {
    const taken = this.#taken
    this.#taken = undefined
    taken?.()
    await new Promise((resolve) => setImmediate(resolve))
  }

  /** Takes everything from now on. */
  async open (): Promise<void> {
    this.#isOpen = true
    await this.takeOne()
  }

  /** Lets these bytes come out of the tunnel, as one chunk. */
  async receive (bytes: Buffer): Promise<void> {
    this.push(bytes)
    await new Promise((resolve) => setImmediate(resolve))
  }
}
