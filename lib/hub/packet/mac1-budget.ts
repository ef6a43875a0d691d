import { TokenBucket } from '../../util/token-bucket.ts'

const TESTS_PER_SECOND = 20_000
/** Of these, what one client may use, however many peers and channels it has: others must get their handshakes through meanwhile. */
const CLIENT_TESTS_PER_SECOND = 4000
const CLIENT_BURST = 12_000

/** How many tests of mac1 a hub makes: each takes some microseconds, and whoever sends initiations decides how many there are. */
export class Mac1Budget {
  readonly #all: TokenBucket
  /** By `Admitted.client`; one that is full again is forgotten. */
  readonly #byClient = new Map<string, TokenBucket>()

  constructor (now: number) {
    this.#all = new TokenBucket(TESTS_PER_SECOND, TESTS_PER_SECOND, now)
  }

  /**
   * Takes one test.
   * @param client whose initiation it is for; undefined where there is no address to go by
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
