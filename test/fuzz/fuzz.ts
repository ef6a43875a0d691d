import { inspect } from 'node:util'
import { check, defaultReportMessage, type IAsyncProperty, type IRawProperty, type RunDetails } from 'fast-check'
import type { Test } from 'tap'

/**
 * A property that must hold whatever comes. The tests run each for a moment, `npm run fuzz` runs them in turn for as
 * long as it is told.
 */
export interface Fuzz {
  /** What `npm run fuzz` calls it. */
  name: string
  /** The behaviour, as a test's title. */
  title: string
  /** How many runs make one batch, less than a second's worth. */
  runs: number
  /** Makes the property, with the servers and the like that it needs; they live until the end of `scope`. */
  prepare: (scope: Scope) => IRawProperty<unknown> | Promise<IRawProperty<unknown>>
}

/** No single run takes this long, on a busy machine either: it hangs. */
const HANG_MS = 20_000
/** A batch of the tests ends after this much time, with fewer runs if need be. */
const TEST_BATCH_MS = 3000

/** Counterexamples may hold datagrams of 65535 bytes; they can be had again by their seed. */
export const MAX_PRINTED = 20_000

/** Stands for a test where the helpers want one for nothing but its end. */
export class Scope {
  readonly #teardowns: Array<() => unknown> = []

  teardown (teardown: () => unknown): void {
    this.#teardowns.push(teardown)
  }

  /** Ends everything, last come first served. */
  async end (): Promise<void> {
    for (const teardown of this.#teardowns.splice(0).reverse()) await teardown()
  }

  get asTest (): Test {
    return this as unknown as Test
  }
}

export interface Batch {
  runs: number
  /** What to print of a failure, the shrunk counterexample included. */
  failure: string | undefined
}

/** Runs a property `fuzz.runs` times. */
export async function runBatch (fuzz: Fuzz, property: IRawProperty<unknown>, seed: number, interruptAfterTimeLimit?: number): Promise<Batch> {
  const details: RunDetails<unknown> = await check(property as IAsyncProperty<unknown>, {
    seed,
    numRuns: fuzz.runs,
    timeout: HANG_MS,
    ...(interruptAfterTimeLimit === undefined ? {} : { interruptAfterTimeLimit })
  })
  if (!details.failed) return { runs: details.numRuns, failure: undefined }
  const message = (defaultReportMessage(details as RunDetails<unknown> & { failed: true }) ?? '').slice(0, MAX_PRINTED)
  return { runs: details.numRuns, failure: `${message}\n\n${inspect(details.errorInstance)}\n\nTo repeat it: ${repeatCommand(fuzz, seed)}` }
}

export function repeatCommand (fuzz: Fuzz, seed: number): string {
  return `npm run fuzz -- --seed ${seed} ${fuzz.name}`
}

/** A seed as fast-check has them: 32 bits. */
export function newSeed (): number {
  return Math.floor(Math.random() * 2 ** 31)
}

/** Defines one test for each; SPANZA_FUZZ_BATCHES says how many batches, one if it does not. */
export function testFuzzes (t: Test, fuzzes: readonly Fuzz[]): void {
  const batches = Number(process.env.SPANZA_FUZZ_BATCHES ?? 1)
  for (const fuzz of fuzzes) {
    t.test(fuzz.title, async (t) => {
      const scope = new Scope()
      t.teardown(() => scope.end())
      const property = await fuzz.prepare(scope)
      const firstSeed = newSeed()
      let runs = 0
      for (let number = 0; number < batches; number++) {
        const batch = await runBatch(fuzz, property, firstSeed + number, TEST_BATCH_MS)
        runs += batch.runs
        if (batch.failure === undefined) continue
        t.fail(batch.failure)
        return
      }
      t.ok(runs > 0, `${runs} runs, seed ${firstSeed}`)
    })
  }
}
