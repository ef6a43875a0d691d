import t from 'tap'
import { SilentCuts } from '../../../lib/client/sidecar/silent-cuts.ts'

/** What is found out after each of these. */
function found (silences: number[]): Array<number | undefined> {
  const cuts = new SilentCuts()
  return silences.map((silence) => cuts.note(silence))
}

t.test('three cuts after the same silence tell of a rule', async (t) => {
  t.same(found([15_010, 15_400, 14_990, 15_000]), [undefined, undefined, 14_990, 14_990])
})

t.test('cuts after different silences do not, nor those amid traffic', async (t) => {
  t.same(found([15_000, 3000, 15_000, 15_000, 9000, 15_000]), Array(6).fill(undefined))
  t.same(found([10, 12, 14, 10]), Array(4).fill(undefined))
})

t.test('another end in between begins anew', async (t) => {
  const cuts = new SilentCuts()
  cuts.note(15_000)
  cuts.note(15_000)
  cuts.reset()
  t.equal(cuts.note(15_000), undefined)
})
