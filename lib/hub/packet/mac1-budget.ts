import { TokenBucket } from '../../util/token-bucket.ts'

const TESTS_PER_SECOND = 20_000
/** The share of one client across all its peers and channels, so that other clients' handshakes still get through. */
const CLIENT_TESTS_PER_SECOND = 4000
const CLIENT_BURST = 12_000

/** Limits the mac1 tests of a hub. Each takes some microseconds, and clients control how many are needed. */
export class Mac1Budget {
  readonly #all: TokenBucket
  /** By `Admitted.client`. A bucket is removed once it is full again. */
  readonly #byClient = new Map<string, TokenBucket>()

  constructor (now: number) {
    this.#all = new TokenBucket(TESTS_PER_SECOND, TESTS_PER_SECOND, now)
  }

  /**
   * Takes one test from the budget.
   * @param client the client that sent the initiation; undefined if it has no address
   */
  take (client: string | undefined, now: number): boolean {
    return (client === undefined || this.#ofClient(client, now).take(now)) && this.#all.take(now)
  }

  sweep (now: number): void {
    for (const [client, bucket] of this.#byClient) {
      if (bucket.isFull(now)) this.#byClient.delete(client)
    }
  }

  #ofClient (client: string, now: number): TokenBucket {
    let bucket = this.#byClient.get(client)
    if (bucket === undefined) {
      bucket = new TokenBucket(CLIENT_TESTS_PER_SECOND, CLIENT_BURST, now)
      this.#byClient.set(client, bucket)
    }
    return bucket
  }
}
