import t from 'tap'
import { readList } from '../../lib/util/option-error.ts'

t.test('readList', (t) => {
  t.same(readList('x', undefined, ['a', 'b']), ['a', 'b'])
  t.same(readList('x', ['b'], ['a', 'b']), ['b'])
  t.end()
})
