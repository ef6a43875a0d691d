import { HANDSHAKE_INITIATION, classify } from '../../framing/wireguard.ts'

const MAX_BRIDGED = 64
const MAX_BRIDGED_MS = 2000

interface Waiting {
  datagram: Buffer
  since: number
}

/**
 * Keeps datagrams while there is no connection, so that a short outage loses little: the newest 64, each for at most 2 s. Of
 * handshake initiations it keeps only the newest.
 */
export class Bridge {
  readonly #onDrop: (count: number) => void
  #waiting: Waiting[] = []

  /** @param onDrop called with the number of datagrams that were dropped */
  constructor (onDrop: (count: number) => void) {
    this.#onDrop = onDrop
  }

  add (datagram: Buffer): void {
    const now = performance.now()
    const initiation = isInitiation(datagram)
    this.#keep(({ datagram: other, since }) => now - since < MAX_BRIDGED_MS && !(initiation && isInitiation(other)))
    this.#waiting.push({ datagram, since: now })
    if (this.#waiting.length > MAX_BRIDGED) {
      this.#waiting.shift()
      this.#onDrop(1)
    }
  }

  /** Returns and forgets the datagrams that are not too old, the oldest first. */
  take (): Buffer[] {
    const now = performance.now()
    this.#keep(({ since }) => now - since < MAX_BRIDGED_MS)
    const datagrams = this.#waiting.map(({ datagram }) => datagram)
    this.#waiting = []
    return datagrams
  }

  /** Drops everything. */
  clear (): void {
    this.#keep(() => false)
  }

  #keep (wanted: (waiting: Waiting) => boolean): void {
    const kept = this.#waiting.filter(wanted)
    if (kept.length < this.#waiting.length) this.#onDrop(this.#waiting.length - kept.length)
    this.#waiting = kept
  }
}

function isInitiation (datagram: Buffer): boolean {
  return classify(datagram, 0, datagram.length) === HANDSHAKE_INITIATION
}
