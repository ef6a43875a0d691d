import t from 'tap'
import { Mac1Budget } from '../../../lib/hub/packet/mac1-budget.ts'

function taken (budget: Mac1Budget, client: string | undefined, now: number): number {
  let count = 0
  while (budget.take(client, now)) count++
  return count
}

t.test('one client gets a part of all tests, and at most a fifth of them for long', async (t) => {
  const budget = new Mac1Budget(0)
  t.equal(taken(budget, 'a', 0), 12_000)
  t.equal(taken(budget, 'b', 0), 8000)
  budget.sweep(1000)
  t.equal(taken(budget, 'a', 1000), 4000)
  t.equal(taken(budget, undefined, 1000), 16_000)
})

t.test('a client that has rested has all of its part again', async (t) => {
  const budget = new Mac1Budget(0)
  taken(budget, 'a', 0)
  budget.sweep(3000)
  t.equal(taken(budget, 'a', 3000), 12_000)
})
